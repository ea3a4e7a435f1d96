// SPDX-License-Identifier: Apache-2.0
//
// Who waits for whom in a store, and looks again afterwards: the test holds a lock until another
// process waits for it, changes what that one has seen, and lets go.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { PAGES = 60, WAIT_MS = 20000, STEP_MS = 5 };

static struct workspace space;

static int replace_image(uint64_t first)
{
    struct fl_store *store = NULL;
    struct fl_pack_result result;
    struct fl_pack_options options = {.name = "image", .path = space.memory, .replace = true};
    int r = make_pages(space.memory, first, PAGES);
    if (r == 0)
        r = fl_store_open(space.store, true, &store, NULL);
    if (r == 0)
        r = fl_store_pack(store, &options, &result, NULL);
    fl_store_close(store);
    return r;
}

static void setup(void)
{
    cr_assert_eq(workspace_make(&space), 0);
    cr_assert_eq(replace_image(1), 0);
}

static void teardown(void)
{
    workspace_remove(&space);
}

TestSuite(lock, .init = setup, .fini = teardown, .timeout = 100);

// --- a process that is going to wait ---

// fn's result, a negative errno, is the process's, made positive.
static pid_t start(int (*fn)(void))
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(-fn());
    }
    return pid;
}

static int result_of(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "status %x", (unsigned)status);
    return -WEXITSTATUS(status);
}

// As /proc/locks has it: "3: -> FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF".
static bool waits(pid_t pid)
{
    char line[256];
    bool found = false;
    FILE *locks = fopen("/proc/locks", "re");
    cr_assert_not_null(locks);
    while (!found && fgets(line, sizeof(line), locks)) {
        int who;
        found = sscanf(line, "%*d: -> FLOCK %*s %*s %d", &who) == 1 && who == pid;
    }
    fclose(locks);
    return found;
}

static void expect_waiting(pid_t pid)
{
    siginfo_t ended = {.si_pid = 0};
    for (int ms = 0; !waits(pid); ms += STEP_MS) {
        cr_assert_lt(ms, WAIT_MS);
        cr_assert_eq(waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT), 0);
        cr_assert_eq(ended.si_pid, 0, "it has ended and waited for nobody");
        poll(NULL, 0, STEP_MS);
    }
}

// Closing the descriptor lets go.
static int hold(const char *part)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", space.store, part);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    return fd;
}

// --- traces ---

static int merge_one(void)
{
    static const struct fl_trace_entry touched = {.page = 3};
    const struct fl_recording one = {.entries = &touched, .count = 1};
    return merge_trace(space.store, "image", &one, 1, false);
}

static int remove_it(void)
{
    return remove_image(space.store, "image");
}

static int remove_its_trace(void)
{
    return remove_trace(space.store, "image");
}

static int collect(void)
{
    return collect_store(space.store, false, NULL);
}

static int pack_again(void)
{
    return pack_file(space.store, "image", space.memory, NULL);
}

static void expect_no_trace(void)
{
    cr_assert_eq(count_files(space.store, "traces"), 0);
}

static void make_and_forget_a_trace(void)
{
    cr_assert_eq(merge_one(), 0); // there is a directory now
    cr_assert_eq(remove_its_trace(), 0);
}

Test(lock, what_was_recorded_of_a_replaced_image_is_not_published)
{
    make_and_forget_a_trace();
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t merger = start(merge_one);
    expect_waiting(merger);
    cr_assert_eq(replace_image(5000), 0);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(merger), -ESTALE);
    expect_no_trace();
}

Test(lock, what_was_recorded_of_a_removed_image_is_not_published)
{
    char path[160];
    make_and_forget_a_trace();
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t merger = start(merge_one);
    expect_waiting(merger);
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    int r = unlink(path);
    cr_assert_eq(r, 0);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(merger), -ESTALE);
    expect_no_trace();
}

Test(lock, what_was_recorded_is_published_if_the_same_content_was_packed_again)
{
    make_and_forget_a_trace();
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t merger = start(merge_one);
    expect_waiting(merger);
    cr_assert_eq(replace_image(1), 0);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(merger), 0);
    cr_assert_eq(count_files(space.store, "traces"), 1);
}

// Else who merges, and has read it already, would bring back what was removed.
Test(lock, a_trace_is_not_removed_while_one_merges_into_it)
{
    cr_assert_eq(merge_one(), 0);
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t remover = start(remove_its_trace);
    expect_waiting(remover);
    cr_assert_eq(count_files(space.store, "traces"), 1);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(remover), 0);
    expect_no_trace();
}

// Else it would remove the trace of the next one.
Test(lock, no_image_takes_the_name_of_one_whose_trace_is_still_to_go)
{
    cr_assert_eq(merge_one(), 0);
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t remover = start(remove_it);
    expect_waiting(remover);
    cr_assert_eq(count_files(space.store, "images"), 0);
    pid_t packer = start(pack_again);
    expect_waiting(packer);
    cr_assert_eq(count_files(space.store, "images"), 0);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(remover), 0);
    cr_assert_eq(result_of(packer), 0);
    cr_assert_eq(count_files(space.store, "images"), 1);
    expect_no_trace();
}

// rm takes no lock that keeps gc out.
Test(lock, gc_is_content_if_another_has_removed_the_trace)
{
    char path[160];
    cr_assert_eq(merge_one(), 0);
    snprintf(path, sizeof(path), "%s/images/image.img", space.store);
    int r = unlink(path);
    cr_assert_eq(r, 0);
    FL_AUTO_CLOSE int held = hold("traces");
    pid_t collector = start(collect);
    expect_waiting(collector);
    snprintf(path, sizeof(path), "%s/traces/image.trace", space.store);
    r = unlink(path);
    cr_assert_eq(r, 0);
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(collector), 0);
}

// --- making a store ---

static int open_or_make(void)
{
    struct fl_store *store = NULL;
    struct fl_error error;
    int r = fl_store_open(space.store, true, &store, &error);
    fl_store_close(store);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    return r;
}

// As another does who was first.
static void make_by_hand(void)
{
    static const char *const parts[] = {"packs", "images", "index", "tmp"};
    char path[160];
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", space.store, parts[i]);
        cr_assert_eq(mkdir(path, 0700), 0);
    }
    snprintf(path, sizeof(path), "%s/" FL_MARKER_NAME, space.store);
    FL_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, FL_MARKER_TEXT, strlen(FL_MARKER_TEXT), 0), 0);
}

Test(lock, who_finds_the_store_made_meanwhile_opens_it)
{
    remove_tree(space.store);
    cr_assert_eq(mkdir(space.store, 0700), 0);
    FL_AUTO_CLOSE int held = hold(".");
    pid_t second = start(open_or_make);
    expect_waiting(second);
    make_by_hand();
    flock(held, LOCK_UN);
    cr_assert_eq(result_of(second), 0);
}

// --- verify ---

enum { MORE = 4, INSIDE_A_FRAME = 100 };

static void part_of(char path[160], const char *part, const char *file)
{
    snprintf(path, 160, "%s/%s/%s", space.store, part, file);
}

static void spoil(const char *path)
{
    static const char noise[8] = "spoiled";
    FL_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, noise, sizeof(noise), INSIDE_A_FRAME), 0);
}

// What is told at once; a bad frame is when all packs are through.
static void spoil_header(const char *path)
{
    FL_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fl_pwrite_full(fd, "?", 1, 0), 0);
}

// For each file in a part of the store.
static void each_file(const char *part, void (*fn)(const char *path))
{
    char path[160];
    part_of(path, part, "");
    DIR *dir = opendir(path);
    cr_assert_not_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        snprintf(path, sizeof(path), "%s/%s/%.40s", space.store, part, entry->d_name);
        if (entry->d_type != DT_DIR)
            fn(path);
    }
    closedir(dir);
}

static void forget(const char *path)
{
    int r = unlink(path);
    cr_assert_eq(r, 0);
}

static void lose(void *part, const char *object, const char *problem)
{
    fprintf(stderr, "bad: %s: %s\n", object, problem);
    each_file(part, forget);
}

// Verifies, and when the first bad thing is told what is in this part is removed.
static struct fl_verify_result verify_and_lose(const char *part)
{
    struct fl_store *store = NULL;
    struct fl_verify_result result;
    struct fl_verify_options options = {.bad = lose, .bad_arg = (void *)(uintptr_t)part};
    cr_assert_eq(fl_store_open(space.store, false, &store, NULL), 0);
    cr_assert_eq(fl_store_verify(store, &options, &result, NULL), 0);
    fl_store_close(store);
    return result;
}

static void pack_more(void)
{
    for (unsigned i = 0; i < MORE; i++) {
        char name[16];
        snprintf(name, sizeof(name), "more-%u", i);
        cr_assert_eq(make_pages(space.memory, 7000 + i * PAGES, PAGES), 0);
        cr_assert_eq(pack_file(space.store, name, space.memory, NULL), 0);
    }
}

Test(lock, an_image_that_is_removed_while_all_are_verified_is_not_bad)
{
    char path[160];
    pack_more();
    part_of(path, "images", "image.img"); // the first
    spoil(path);
    struct fl_verify_result result = verify_and_lose("images");
    cr_assert_eq(result.images, 1);
    cr_assert_eq(result.bad, 1);
}

// As who cannot publish an image takes its pack back.
Test(lock, a_pack_that_goes_while_all_are_verified_is_not_bad)
{
    pack_more();
    each_file("images", forget);
    each_file("packs", spoil_header);
    struct fl_verify_result result = verify_and_lose("packs");
    cr_assert_eq(result.packs, 1);
    cr_assert_eq(result.bad, 1);
}

// --- without permission ---

// As nobody, who may not look into the store, or not even to it.
static int open_as_nobody(void)
{
    static const char *const says[] = {"cannot open the store ",
                                       "cannot open or create the store "};
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct stat dir;
    if (stat(space.dir, &dir) < 0 || (geteuid() == 0 && setuid(65534) < 0))
        return -EINVAL;
    bool hidden = (dir.st_mode & 0777) == 0;
    int r = fl_store_open(space.store, true, &store, &error);
    fprintf(stderr, "%s\n", error.text);
    return r == -EACCES && strncmp(error.text, says[hidden], strlen(says[hidden])) == 0 ? 0 : -EIO;
}

Test(lock, who_may_not_is_not_told_that_there_is_no_store)
{
    cr_assert_eq(chmod(space.dir, 0711), 0);
    cr_assert_eq(chmod(space.store, 0), 0);
    int to_store = result_of(start(open_as_nobody));
    cr_assert_eq(chmod(space.dir, 0), 0);
    int to_parent = result_of(start(open_as_nobody));
    cr_assert_eq(chmod(space.dir, 0700), 0);
    cr_assert_eq(chmod(space.store, 0700), 0);
    cr_assert_eq(to_store, 0);
    cr_assert_eq(to_parent, 0);
}
