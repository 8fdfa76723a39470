"""Authentication and permissions: API keys, sessions, OpenID Connect, login links, allowed hosts."""
