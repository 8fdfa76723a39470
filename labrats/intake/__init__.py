"""How a request, an event or a link of a chain becomes a job: its settings, its texts, and what is stored with it."""
