// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a server: what looks at a path also makes a system call that Faultline never
// makes, as a library of tomorrow may. It must be refused, and the path be looked at all the same.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int look(const char *path, struct stat *status);

int lstat(const char *path, struct stat *status)
{
    void *symbol = dlsym(RTLD_NEXT, "lstat");
    look *real = NULL;
    memcpy(&real, &symbol, sizeof(real)); // ISO C has no cast from one to the other
    syscall(SYS_times, NULL);
    return real(path, status);
}
