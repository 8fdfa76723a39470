"""The sandbox of one machine, and what of it confines agents in pods, too.

`bubblewrap.py` builds the command. `seccomp.py` and `landlock.py` restrict what its processes may ask of the kernel,
`control_groups.py` restricts what they may take of the machine.
"""
