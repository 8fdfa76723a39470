"""What a job, a model and a secret are: frozen records, enums and pure functions. Imports nothing else of ours."""
