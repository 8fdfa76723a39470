"""The limits on the processors, the memory, the processes and the disk of an attempt.

Where the engine may create control groups, the kernel enforces the limits on memory and processes. Everywhere, one
sampler measures the attempt's processes and folders. It is for accidents; docs/security.md says what is not defended.
"""
