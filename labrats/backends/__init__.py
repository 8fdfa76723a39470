"""What fulfils the ports: `embedded` (SQLite and processes of this machine). Only main.py names one."""
