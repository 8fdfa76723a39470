"""Admission of every job: requests, events, children of chains and applied jobs become jobs along one path."""
