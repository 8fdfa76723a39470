"""What answers lists, counts and history: the jobs, their course over time, and the catalog of agents and settings."""
