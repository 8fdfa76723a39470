"""The publisher: writes the reports of jobs to GitHub. The agents never hold a token that can write."""
