/* Preloaded into User-Mode Linux on a processor whose registers do not fit into its buffer (AMX).

   ptrace sets the extended registers only as a whole, and User-Mode Linux knows only the first part of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long (*function)(int, int, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
	static __thread char whole[64 * 1024];
	static function original;
	struct iovec all = {whole, sizeof(whole)}, *known;
	va_list arguments;
	int process;
	void *address, *data;

	va_start(arguments, request);
	process = va_arg(arguments, int);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (!original)
		original = (function)dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
		known = data;
		if (original(PTRACE_GETREGSET, process, address, &all) == 0 && all.iov_len > known->iov_len) {
			memcpy(whole, known->iov_base, known->iov_len);
			data = &all;
		}
	}
	return original(request, process, address, data);
}
