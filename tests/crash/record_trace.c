// SPDX-License-Identifier: Apache-2.0
//
// Merges a recording into the trace of an image of a store, as `faultline record` does with what a
// server has recorded: a file of lines of "PAGE MS", in the order of touch.
//
// usage: record_trace STORE IMAGE RECORDING [--replace]
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/store.h"

static struct fl_trace_entry *read_touches(FILE *file, uint64_t *ret_count)
{
    struct fl_trace_entry *entries = NULL;
    struct fl_trace_entry entry = {.page = 0};
    uint64_t room = 0;
    *ret_count = 0;
    while (fscanf(file, "%" SCNu64 " %" SCNu32, &entry.page, &entry.ms) == 2) {
        if (*ret_count == room) {
            room = room ? 2 * room : 1024;
            entries = realloc(entries, room * sizeof(*entries));
            if (!entries)
                abort();
        }
        entries[(*ret_count)++] = entry;
    }
    return entries;
}

int main(int argc, char **argv)
{
    struct fl_store *store = NULL;
    struct fl_error error = {""};
    struct fl_recording recording = {.entries = NULL};
    if (argc < 4)
        return 2;
    FILE *file = fopen(argv[3], "re");
    if (!file)
        return 2;
    struct fl_trace_entry *entries = read_touches(file, &recording.count);
    fclose(file);
    bool replace = argc > 4 && strcmp(argv[4], "--replace") == 0;
    recording.entries = entries;
    int r = fl_store_open(argv[1], false, &store, &error);
    if (r == 0)
        r = fl_store_trace_merge(store, argv[2], &recording, 1, replace, &error);
    fl_store_close(store);
    free(entries);
    if (r < 0)
        fprintf(stderr, "record_trace: %s\n", error.text);
    return r < 0;
}
