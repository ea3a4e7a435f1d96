// SPDX-License-Identifier: Apache-2.0
#include "engine/template/template.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/crash_point.h"
#include "engine/base/dontdump.h"
#include "engine/base/log.h"
#include "engine/host/uffd.h"

enum { REPAIRS = 8 };

// --- which pages are there ---

uint64_t fl_template_next_hole(const struct fl_template *template, uint64_t page)
{
    uint64_t pages = template->state->pages;
    while (page < pages) {
        uint64_t word = ~atomic_load_explicit(&template->filled[page / 64], memory_order_acquire);
        word = word >> (page % 64) << (page % 64);
        if (word) {
            page = page / 64 * 64 + (unsigned)__builtin_ctzll(word);
            return page < pages ? page : pages;
        }
        page = (page / 64 + 1) * 64;
    }
    return pages;
}

uint64_t fl_template_there(const struct fl_template *template, uint64_t page, uint64_t count)
{
    uint64_t end = page;
    while (end < page + count && fl_template_has(template, end))
        end++;
    return end - page;
}

uint64_t fl_template_next(const struct fl_template *template, uint64_t page, uint64_t end)
{
    while (page < end && !fl_template_has(template, page)) {
        bool none = page < template->state->pages && page % 64 == 0 &&
                    atomic_load_explicit(&template->filled[page / 64], memory_order_relaxed) == 0;
        page += none ? 64 : 1;
    }
    return page < end ? page : end;
}

// True if we were the first to say so.
static bool mark_page(struct fl_template *template, uint64_t page)
{
    uint64_t bit = 1ULL << (page % 64);
    uint64_t before =
        atomic_fetch_or_explicit(&template->filled[page / 64], bit, memory_order_acq_rel);
    if (!(before & bit))
        atomic_fetch_add_explicit(&template->state->filled, 1, memory_order_relaxed);
    return !(before & bit);
}

static uint64_t mark_pages(struct fl_template *template, uint64_t page, uint64_t count)
{
    uint64_t new = 0;
    for (uint64_t i = 0; i < count; i++)
        new += mark_page(template, page + i);
    return new;
}

bool fl_template_sealed(const struct fl_template *template)
{
    return (template->state->flags & FL_TEMPLATE_SEALED) != 0;
}

bool fl_template_suspect(const struct fl_template *template)
{
    struct stat status;
    return !fl_template_sealed(template) && fstat(template->memory, &status) == 0 &&
           (uint64_t)status.st_blocks * 512 >> FL_PAGE_SHIFT > template->state->filled;
}

// --- filling ---

static bool page_is_right(const struct fl_template *template, uint64_t page, const void *from)
{
    static const uint8_t zeros[FL_PAGE_SIZE];
    uint8_t bytes[FL_PAGE_SIZE];
    return pread(template->memory, bytes, sizeof(bytes), (off_t)(page << FL_PAGE_SHIFT)) ==
               (ssize_t)sizeof(bytes) &&
           memcmp(bytes, from ? from : zeros, sizeof(bytes)) == 0;
}

// A client has read a hole of a mapping that it did not have watched: the hole is zeros now, which
// other clients may have seen, too.
static bool repair_page(struct fl_template *template, uint64_t page, const void *from)
{
    static const uint8_t zeros[FL_PAGE_SIZE];
    bool right = false;
    for (unsigned i = 0; !right && i < REPAIRS; i++) {
        if (pwrite(template->memory, from ? from : zeros, FL_PAGE_SIZE,
                   (off_t)(page << FL_PAGE_SHIFT)) < 0)
            break;
        right = page_is_right(template, page, from);
    }
    if (atomic_fetch_add(&template->state->repaired, 1) == 0)
        fl_log(FL_LOG_ERROR,
               "event=template_repaired image=%s image_page=%" PRIu64
               " reason=\"a client read a page of the template that was not registered with its "
               "userfaultfd\"",
               template->state->image, page);
    return right;
}

// The page is there without our doing: another thread has just filled it, an engine was killed
// before it could set the bit, or it is not what it should be.
static bool settle_page(struct fl_template *template, uint64_t page, const void *from)
{
    return fl_template_has(template, page) || page_is_right(template, page, from) ||
           repair_page(template, page, from);
}

bool fl_template_check(struct fl_template *template, uint64_t page, const void *from)
{
    bool right = settle_page(template, page, from);
    if (right && mark_page(template, page))
        fl_template_budget_take(&template->shared->budget, 1);
    return right;
}

uint64_t fl_template_fill(struct fl_template *template, uint64_t page, const void *from,
                          uint64_t count)
{
    uint64_t to = template->window + (page << FL_PAGE_SHIFT);
    uint64_t bytes = count << FL_PAGE_SHIFT;
    uint64_t done = 0;
    if (page + count > template->state->pages || template->uffd < 0)
        return 0;
    if (!fl_template_budget_reserve(&template->shared->budget, count)) {
        atomic_fetch_add_explicit(&template->state->refused, count, memory_order_relaxed);
        return 0;
    }
    int error = from ? fl_uffd_copy(template->uffd, to, from, bytes, true, &done)
                     : fl_uffd_zero(template->uffd, to, bytes, true, &done);
    FL_CRASH_POINT("template_filled");
    done >>= FL_PAGE_SHIFT;
    if (done == 0 && error == -EEXIST && settle_page(template, page, from))
        done = 1;
    uint64_t new = mark_pages(template, page, done);
    FL_CRASH_POINT("template_marked");
    fl_template_budget_release(&template->shared->budget, count - new);
    // Sealed a moment ago, it needs no filling.
    return done > 0 ? done : fl_template_there(template, page, count);
}

// --- making one ---

// Our window on it: no thread touches it, so that no fault of our own is ever waited for.
static int open_window(struct fl_template *template)
{
    size_t bytes = (size_t) template->state->pages << FL_PAGE_SHIFT;
    void *window = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, template->memory, 0);
    if (window == MAP_FAILED)
        return -errno;
    template->window = (uintptr_t)window;
    fl_dontdump(window, bytes);
    madvise(window, bytes, MADV_DONTFORK);
    template->uffd = fl_uffd_new();
    return template->uffd < 0 ? template->uffd
                              : fl_uffd_register(template->uffd, template->window, bytes);
}

static void *window_of(const struct fl_template *template)
{
    return (void *)(uintptr_t) template->window; // NOLINT(performance-no-int-to-ptr)
}

// Its addresses stay ours as long as a thread may be about to fill a page there: the kernel takes a
// copy for any memory that is watched, through whatever descriptor, and another template's window
// in this place would get our bytes.
static int close_window(struct fl_template *template)
{
    size_t bytes = (size_t) template->state->pages << FL_PAGE_SHIFT;
    if (!template->window)
        return 0;
    void *nothing = mmap(window_of(template), bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return nothing == MAP_FAILED ? -errno : 0;
}

static void free_window(struct fl_template *template)
{
    if (template->window)
        munmap(window_of(template), (size_t) template->state->pages << FL_PAGE_SHIFT);
}

static int open_readable(struct fl_template *template)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", template->memory);
    template->readable = open(path, O_RDONLY | O_CLOEXEC);
    return template->readable < 0 ? -errno : 0;
}

// Its owner alone may write, and only as root: the mode denies it.
static int new_memory(const char *image, uint64_t pages)
{
    char name[64];
    snprintf(name, sizeof(name), "faultline-template-%.40s", image);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (fchmod(fd, 0444) == 0 && ftruncate(fd, (off_t)(pages << FL_PAGE_SHIFT)) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

static struct fl_template *allocate_template(struct fl_template_shared *shared, uint64_t id)
{
    struct fl_template *template = calloc(1, sizeof(*template));
    if (!template)
        return NULL;
    template->shared = shared;
    template->id = id;
    template->memory = template->readable = template->state_fd = template->uffd = -1;
    CDS_INIT_LIST_HEAD(&template->link);
    return template;
}

int fl_template_new(struct fl_template_shared *shared, uint64_t id, const char *image,
                    uint64_t pages, struct fl_template **ret_template)
{
    struct fl_template *template = allocate_template(shared, id);
    if (!template)
        return -ENOMEM;
    int error = fl_template_state_create(image, pages, &template->state_fd, &template->state);
    if (!error) {
        template->filled = fl_template_filled(template->state);
        template->memory = new_memory(image, pages);
        error = template->memory < 0 ? template->memory : open_readable(template);
    }
    if (!error)
        error = open_window(template);
    if (error)
        fl_template_free(template);
    else
        *ret_template = template;
    return error;
}

// Its size and seals are what we go by: anything else was never ours.
static int check_memory(const struct fl_template *template)
{
    struct stat status;
    int seals = fcntl(template->memory, F_GET_SEALS);
    if (seals < 0 || fstat(template->memory, &status) != 0)
        return -errno;
    bool same = (uint64_t)status.st_size == template->state->pages << FL_PAGE_SHIFT &&
                (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW);
    // Killed between the seal and the note of it.
    if (same && (seals & F_SEAL_WRITE))
        atomic_fetch_or(&template->state->flags, FL_TEMPLATE_SEALED);
    return same ? 0 : -EINVAL;
}

int fl_template_open(struct fl_template_shared *shared, uint64_t id, int memory, int state_fd,
                     struct fl_template **ret_template)
{
    struct fl_template *template = allocate_template(shared, id);
    if (!template)
        return -ENOMEM;
    int error = fl_template_state_open(state_fd, &template->state);
    if (!error) {
        template->filled = fl_template_filled(template->state);
        template->memory = memory;
        error = check_memory(template);
    }
    if (!error)
        error = open_readable(template);
    if (!error && !fl_template_sealed(template))
        error = open_window(template);
    if (error) {
        template->memory = -1; // the caller's
        fl_template_free(template);
        return error;
    }
    template->state_fd = state_fd;
    *ret_template = template;
    return 0;
}

void fl_template_free(struct fl_template *template)
{
    if (template->state) {
        free_window(template);
        fl_template_state_unmap(template->state);
    }
    if (template->uffd >= 0)
        close(template->uffd);
    if (template->memory >= 0)
        close(template->memory);
    if (template->readable >= 0)
        close(template->readable);
    if (template->state_fd >= 0)
        close(template->state_fd);
    fl_dontdump_unmap(template->pass.frame, FL_TEMPLATE_FRAME_BYTES); // its reader ended halfway
    free(template);
}

// A thread that is about to fill a page of it, not knowing that it is there already, is told that
// there is no such memory (-ENOENT), and looks again.
int fl_template_seal(struct fl_template *template)
{
    int error = close_window(template);
    if (error)
        return error;
    if (fcntl(template->memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        return -errno;
    FL_CRASH_POINT("template_sealed");
    atomic_fetch_or(&template->state->flags, FL_TEMPLATE_SEALED);
    return 0;
}
