"""The client of GitHub's API: as an App, in a repository, and with the credentials of webhook sources."""
