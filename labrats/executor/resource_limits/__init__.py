"""The limits on the processors, the memory, the processes and the disk of an attempt.

Without any setting, an attempt has no more than a share of what the machine has for all: see `machine_shares`.

All but the first are enforced by sampling the attempt's process tree and its folders, in threads of their own, as an
agent can keep the event loop busy with its output; where the engine may create control groups, also by the kernel.
Limits of the kernel for single processes do not fit: RLIMIT_AS keeps Node, Go and the JVM from starting, and
RLIMIT_NPROC does not apply to root.
"""
