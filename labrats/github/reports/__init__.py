"""The report of a job to GitHub as pure functions: texts, checks, reviews and the policy on changes."""
