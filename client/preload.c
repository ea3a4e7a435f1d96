// SPDX-License-Identifier: Apache-2.0
//
// libfaultline-preload.so gives an unmodified QEMU guest RAM that is filled on demand.
//
// Set in the environment: LD_PRELOAD, FAULTLINE_RAM_FILE=FILE and FAULTLINE_SOCKET=IMAGE.sock. Give
// QEMU: -object memory-backend-file,id=ram,mem-path=FILE,size=1G,share=on -machine
// memory-backend=ram
//
// QEMU maps its RAM file. This library replaces mmap(): where the file is FAULTLINE_RAM_FILE (it
// compares device and inode), it maps private anonymous memory instead, and hands that over to the
// handler that listens at FAULTLINE_SOCKET. All other calls pass through. The mapping's offset in
// the file is its offset in the image. The file must exist, but it is neither read nor written: an
// empty sparse file of the right size is enough. FAULTLINE_HUGE=1 takes 2 MiB pages from the
// hugetlb pool; QEMU then needs `align=2M` on the backend, so that it maps at a multiple of that.
//
// FAULTLINE_TEMPLATE=IMAGE.template instead of FAULTLINE_SOCKET maps the image's template
// (`faultline template`): guests then share every page that they have not written to.
//
// share=on is needed although the memory becomes private: the migration capability x-ignore-shared,
// which leaves RAM out of the migration stream, looks at QEMU's own flag of the backend, on both
// sides. Without it the stream holds all of RAM, and restoring writes every page. The guest never
// writes to the file, so many guests may start from one file. No other process sees the guest's
// RAM, so vhost-user and other users of a shared file do not work. To save the restored guest
// again, migrate it without the capability, because its RAM is not in the file.
//
// Every error ends the process with one sentence on stderr: otherwise the guest would go on with
// zeros for memory. A second mapping of the same part of the file is such an error, because the two
// would not show the same memory. The handshake has no answer: a handler that refuses it later
// poisons the memory, and the guest ends with SIGBUS. When QEMU discards guest memory (balloon,
// free page reporting), its call fails with a message and changes nothing, because MADV_REMOVE
// needs a shared file.
//
// Threads: a mutex guards the list of mappings, so any thread may call mmap().
//
// Children inherit LD_PRELOAD (`exec:` migrations run a shell), so the file must stay.
#include <errno.h>
#include <faultline_client.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26) // linux/mman.h: log2 of the size at bit 26
#endif

enum { MAPPINGS_MAX = 16, LINE = 2 * PATH_MAX + 512 };

#define PRELOAD_API __attribute__((visibility("default")))

PRELOAD_API void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset);
PRELOAD_API void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset);

// Set once, by configure(), and only read after that.
static struct {
    char file[PATH_MAX];
    char socket[PATH_MAX];
    bool is_template;
    uint32_t page_bytes;
    dev_t dev;
    ino_t ino;
} config;
static pthread_once_t configured = PTHREAD_ONCE_INIT;

// The parts of the file that have been mapped; `lock` guards the list. A part stays in it when it
// is unmapped: its content is gone then, and a second mapping would not show it.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t offset;
    uint64_t bytes;
} mapped[MAPPINGS_MAX];
static size_t mappings;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    static const char prefix[] = "libfaultline-preload: ";
    char line[LINE];
    va_list args;
    memcpy(line, prefix, sizeof(prefix));
    va_start(args, format);
    vsnprintf(line + sizeof(prefix) - 1, sizeof(line) - sizeof(prefix), format, args);
    va_end(args);
    size_t length = strlen(line);
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0)
        _exit(1); // there is no other place for the message
    _exit(1);
}

static void copy_setting(char *place, const char *name)
{
    const char *value = getenv(name);
    if (!value || !*value)
        die("%s is not set in the environment", name);
    if (snprintf(place, PATH_MAX, "%s", value) >= PATH_MAX)
        die("%s is longer than a path can be", name);
}

static void configure(void)
{
    struct stat status;
    const char *huge = getenv("FAULTLINE_HUGE");
    long page_bytes = sysconf(_SC_PAGESIZE);
    if (page_bytes != FL_CLIENT_PAGE)
        die("this kernel's memory pages are of %ld KiB, and only kernels with pages of 4 KiB are "
            "supported",
            page_bytes / 1024);
    copy_setting(config.file, "FAULTLINE_RAM_FILE");
    config.is_template = getenv("FAULTLINE_TEMPLATE") != NULL;
    copy_setting(config.socket, config.is_template ? "FAULTLINE_TEMPLATE" : "FAULTLINE_SOCKET");
    if (huge && *huge && strcmp(huge, "0") != 0 && strcmp(huge, "1") != 0)
        die("FAULTLINE_HUGE is %s, which is neither 0 nor 1", huge);
    config.page_bytes = huge && *huge == '1' ? FL_CLIENT_HUGE_PAGE : FL_CLIENT_PAGE;
    if (config.is_template && config.page_bytes != FL_CLIENT_PAGE)
        die("FAULTLINE_HUGE cannot be used with FAULTLINE_TEMPLATE, whose pages are of 4 KiB");
    if (stat(config.file, &status) != 0)
        die("%s (FAULTLINE_RAM_FILE): %s", config.file, strerror(errno));
    if (!S_ISREG(status.st_mode))
        die("%s (FAULTLINE_RAM_FILE) is not a regular file", config.file);
    config.dev = status.st_dev;
    config.ino = status.st_ino;
}

// Checks the settings when the library is loaded, so that a wrong one shows at once.
__attribute__((constructor)) static void check_settings(void)
{
    pthread_once(&configured, configure);
}

static void *kernel_mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    // The C library's own mmap() does the same. It is not called, because the look-up of its
    // address (dlsym) may allocate memory.
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a system call returns a number.
    return (void *)syscall(SYS_mmap, address, length, prot, flags, fd, offset);
}

static bool is_ram_file(int fd)
{
    struct stat status;
    int before = errno;
    bool same = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    errno = before;
    if (!same)
        return false;
    pthread_once(&configured, configure);
    return status.st_dev == config.dev && status.st_ino == config.ino;
}

static void check_place(const void *address, uint64_t bytes, int flags, uint64_t offset)
{
    if (bytes == 0 || bytes % config.page_bytes != 0 || offset % FL_CLIENT_PAGE != 0)
        die("%s: a mapping of %llu bytes at offset %llu does not consist of whole pages of %u "
            "bytes",
            config.file, (unsigned long long)bytes, (unsigned long long)offset, config.page_bytes);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && (uintptr_t)address % config.page_bytes != 0)
        die("%s: the program maps it at %p, which is not a multiple of %u (set align=2M on the "
            "memory backend)",
            config.file, address, config.page_bytes);
}

// Adds a part to the list, or ends the process if it is there already. The caller holds `lock`.
static void claim_part(uint64_t offset, uint64_t bytes)
{
    for (size_t i = 0; i < mappings; i++) {
        if (offset < mapped[i].offset + mapped[i].bytes && mapped[i].offset < offset + bytes)
            die("%s: the part at offset %llu is mapped a second time, and the second mapping would "
                "not show the same memory",
                config.file, (unsigned long long)offset);
    }
    if (mappings == MAPPINGS_MAX)
        die("%s: the program maps it in more than %d parts", config.file, MAPPINGS_MAX);
    mapped[mappings].offset = offset;
    mapped[mappings++].bytes = bytes;
}

// Maps anonymous memory; for a template it only reserves the place. If the program locks all its
// memory (mlockall; QEMU's -overcommit mem-lock=on), the kernel fills new memory with zeros at
// once, unless no access to it is allowed. So access is allowed after the lock has been taken off.
static void *map_memory(void *address, size_t length, int prot, int flags)
{
    int kept = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    int own = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (config.page_bytes == FL_CLIENT_HUGE_PAGE)
        own |= MAP_HUGETLB | MAP_HUGE_2MB;
    void *memory = kernel_mmap(address, length, PROT_NONE, own | kept, -1, 0);
    if (memory == MAP_FAILED || munlock(memory, length) != 0 || mprotect(memory, length, prot) != 0)
        die("%s: cannot map %zu bytes of memory in pages of %u bytes in its place: %s", config.file,
            length, config.page_bytes, strerror(errno));
    return memory;
}

static const char *error_text(int error)
{
    if (config.is_template && error == -EPROTO)
        return "the process that listens there offers no template (FAULTLINE_TEMPLATE is the path "
               "that `faultline template` prints)";
    return strerror(-error);
}

// Never closes the client: the program keeps the memory until its end.
static void hand_over(void *memory, size_t length, uint64_t offset)
{
    struct fl_client *client = NULL;
    struct fl_client_region region = {.address = memory, .bytes = length, .offset = offset};
    int error = config.is_template
                    ? fl_client_map_template(config.socket, &region, 1, &client)
                    : fl_client_hand_over(config.socket, &region, 1, config.page_bytes, &client);
    if (error)
        die("%s: cannot hand its memory over to %s: %s", config.file, config.socket,
            error_text(error));
}

static void *map_ram(void *address, size_t length, int prot, int flags, off_t offset)
{
    int before = errno;
    // Rounds up to pages of 4 KiB, as the kernel does. It does not round up to huge pages: the
    // mapping would then end past the place that the program expects.
    size_t whole = (length + FL_CLIENT_PAGE - 1) & ~(size_t)(FL_CLIENT_PAGE - 1);
    check_place(address, whole, flags, (uint64_t)offset);
    pthread_mutex_lock(&lock);
    claim_part((uint64_t)offset, whole);
    void *memory = map_memory(address, whole, prot, flags);
    hand_over(memory, whole, (uint64_t)offset);
    pthread_mutex_unlock(&lock);
    errno = before;
    return memory;
}

void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    if (fd < 0 || (flags & MAP_ANONYMOUS) || !is_ram_file(fd))
        return kernel_mmap(address, length, prot, flags, fd, offset);
    return map_ram(address, length, prot, flags, offset);
}

void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
{
    return mmap(address, length, prot, flags, fd, offset);
}
