"""A login of Claude Code that the engine's user shares with the jobs. No key proxy can keep it from the agent."""

import json
import time
from pathlib import Path


def share_login(home: Path, token: str) -> dict[str, str]:
    """Write a login with this access token to a home. Return the settings of an engine that shares it."""
    folder = home / ".claude"
    folder.mkdir(exist_ok=True)
    expires_at = int(time.time() + 86400) * 1000
    login = {
        "accessToken": token,
        "refreshToken": f"{token}-refresh",
        "expiresAt": expires_at,
        "scopes": ["user:inference"],
    }
    (folder / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    return {"LABRATS_CLAUDE_USE_LOGIN": "true"}
