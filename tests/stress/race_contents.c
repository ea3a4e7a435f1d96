// SPDX-License-Identifier: Apache-2.0
#include "tests/stress/race_contents.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "snapshot/io.h"
#include "tests/unit/snapshot_support.h"

enum { STEP = 110, PAGES_MIN = 40, PAGES_MAX = 400, ZEROS = 30, READINGS = 6 };

static bool say(bool right, const char *what, const char *about)
{
    if (!right)
        fprintf(stderr, "store_race: %s: %s\n", about, what);
    return right;
}

struct race_path race_memory(const char *dir, unsigned content)
{
    struct race_path path;
    snprintf(path.text, sizeof(path.text), "%s/memory-%u", dir, content);
    return path;
}

struct race_path race_name(unsigned name)
{
    struct race_path path;
    snprintf(path.text, sizeof(path.text), "image-%u", name);
    return path;
}

struct race_path race_source(unsigned content)
{
    struct race_path path;
    snprintf(path.text, sizeof(path.text), "source-%u", content);
    return path;
}

struct race_path race_source_memory(const char *dir, unsigned content)
{
    return race_memory(dir, RACE_CONTENTS + content);
}

static uint64_t pages_of(unsigned content)
{
    return PAGES_MIN + content * 97 % (PAGES_MAX - PAGES_MIN - ZEROS);
}

// Three pages in four are as the content has them, so that it can be a child of this one.
static int make_source_memory(const char *path, unsigned content)
{
    int r = make_pages(path, 1000000, PAGES_MAX);
    FL_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    for (uint64_t page = 0; r == 0 && page < pages_of(content); page++) {
        char bytes[FL_PAGE_SIZE];
        fill_page(bytes, 1 + content * STEP + page);
        if (page % 4 != 3)
            r = fl_pwrite_full(fd, bytes, sizeof(bytes), page * FL_PAGE_SIZE);
    }
    return r;
}

// Each has pages of the one before; the sizes differ and do not rise. Some end with zeros.
void race_make_memories(const char *dir)
{
    for (unsigned content = 0; content < RACE_CONTENTS; content++) {
        struct race_path path = race_memory(dir, content);
        uint64_t pages = pages_of(content);
        int r = make_pages(path.text, 1 + content * STEP, pages);
        if (r == 0 && content % 2 == 1)
            r = truncate(path.text, (off_t)((pages + ZEROS) * FL_PAGE_SIZE));
        if (r == 0)
            r = make_source_memory(race_source_memory(dir, content).text, content);
        if (r != 0)
            abort();
    }
}

// Of one page in two that may be recorded of the content.
static uint64_t make_touches(struct fl_trace_entry *entries, unsigned content, uint64_t pages,
                             uint64_t *seed)
{
    uint64_t count = 0;
    for (uint64_t page = content; page < pages; page += RACE_CONTENTS) {
        if (count > 0 && test_random(seed) % 2 != 0)
            continue;
        entries[count] = (struct fl_trace_entry){.page = page, .ms = (uint32_t)count};
        count++;
    }
    return count;
}

bool race_make_sources(const char *dir, const char *store)
{
    uint64_t seed = 1;
    for (unsigned content = 0; content < RACE_CONTENTS; content++) {
        struct fl_trace_entry entries[PAGES_MAX];
        struct fl_recording one = {.entries = entries};
        struct race_path name = race_source(content);
        struct race_path memory = race_source_memory(dir, content);
        one.count = make_touches(entries, content, PAGES_MAX, &seed);
        if (pack_file(store, name.text, memory.text, NULL) < 0 ||
            merge_trace(store, name.text, &one, 1, false) < 0)
            return false;
    }
    return true;
}

// RACE_CONTENTS: it is none of this name's.
static unsigned identify(const char *dir, const struct fl_image *image, unsigned name)
{
    unsigned content = name;
    while (content < RACE_CONTENTS && !image_is_file(image, race_memory(dir, content).text))
        content += RACE_NAMES;
    return content < RACE_CONTENTS ? content : RACE_CONTENTS;
}

bool race_is_memory(const char *dir, const char *path, unsigned name)
{
    unsigned content = name;
    while (content < RACE_CONTENTS && !same_files(path, race_memory(dir, content).text))
        content += RACE_NAMES;
    return say(content < RACE_CONTENTS, "this is nothing that was packed", path);
}

static bool trace_is_of(const struct fl_trace *trace, unsigned content)
{
    for (uint64_t i = 0; i < fl_trace_count(trace); i++) {
        if (fl_trace_entries(trace)[i].page % RACE_CONTENTS != content)
            return false;
    }
    return true;
}

static bool check_trace(struct fl_reader *reader, const struct fl_image *image, unsigned content)
{
    struct fl_trace *trace = NULL;
    int r = fl_trace_open(reader, image, &trace);
    bool right = r == -ENOENT || r == -ESTALE || (r == 0 && trace_is_of(trace, content));
    fl_trace_unref(trace);
    return say(right, r == 0 ? "its trace is of other content" : "its trace cannot be read",
               fl_image_name(image));
}

static bool check_open(const char *dir, struct fl_reader *reader, const struct fl_image *image,
                       unsigned name)
{
    unsigned content = identify(dir, image, name);
    if (!say(content < RACE_CONTENTS, "it is nothing that was packed", fl_image_name(image)))
        return false;
    for (unsigned i = 0; i < READINGS; i++) {
        if (!check_trace(reader, image, content) ||
            !say(image_is_file(image, race_memory(dir, content).text),
                 "it has changed while it was open", fl_image_name(image)))
            return false;
    }
    return true;
}

bool race_read(const char *dir, const char *store, unsigned name)
{
    struct race_path text = race_name(name);
    struct fl_reader *reader = NULL;
    struct fl_image *image = NULL;
    int r = fl_reader_open(store, &reader);
    if (r == 0)
        r = fl_image_open(reader, text.text, &image);
    bool right = say(r == 0 || r == -ENOENT, "it cannot be opened", text.text);
    if (r == 0)
        right = check_open(dir, reader, image, name);
    fl_image_unref(image);
    fl_reader_close(reader);
    return right;
}

bool race_record(const char *dir, const char *store, unsigned name, uint64_t seed)
{
    struct race_path text = race_name(name);
    struct fl_trace_entry entries[PAGES_MAX];
    struct fl_recording one = {.entries = entries};
    struct fl_image *image = NULL;
    int r = open_image(store, text.text, &image);
    if (r == -ENOENT)
        return true;
    if (!say(r == 0, "it cannot be opened", text.text))
        return false;
    unsigned content = identify(dir, image, name);
    one.count = make_touches(entries, content, fl_image_pages(image), &seed);
    one.content_id = fl_image_content_id(image);
    r = content < RACE_CONTENTS ? merge_trace(store, text.text, &one, 1, false) : -EBADMSG;
    fl_image_unref(image);
    return say(r == 0 || r == -ENOENT || r == -ESTALE, "nothing can be recorded of it", text.text);
}

// Each image, and as many traces as there are images that have one.
static bool check_images(const char *dir, const char *store)
{
    int traces = 0;
    for (unsigned name = 0; name < RACE_NAMES; name++) {
        struct fl_trace *trace = NULL;
        if (!race_read(dir, store, name))
            return false;
        traces += open_trace(store, race_name(name).text, &trace) == 0;
        fl_trace_unref(trace);
    }
    return say(count_files(store, "traces") == traces + RACE_CONTENTS, "traces that are nobody's",
               store);
}

bool race_settle(const char *dir, const char *store)
{
    struct fl_gc_result first;
    struct fl_gc_result second;
    uint64_t bad = 0;
    return collect_store(store, false, &first) == 0 &&
           say(count_files(store, "tmp") == 0, "a file in tmp/ after a gc", store) &&
           verify_store(store, &bad) == 0 && say(bad == 0, "something in it is bad", store) &&
           check_images(dir, store) && collect_store(store, false, &second) == 0 &&
           say(second.packs_removed == 0 && second.packs_kept == first.packs_kept,
               "a second gc found more to do", store);
}
