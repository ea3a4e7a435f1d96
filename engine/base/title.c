// SPDX-License-Identifier: Apache-2.0
//
// Theory of operation. The kernel shows as command line what stands in memory from the first
// argument to the end of the last one. If the last byte there is no NUL, it shows the text that
// begins there, which may go on into the environment (fs/proc/base.c, get_mm_cmdline()). Both are
// strings, one behind the other, below the stack's top.
#include "engine/base/title.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

// Written by fl_title_begin() alone.
static struct {
    char *place;
    size_t room;
    char *options;      // what follows the role in the title
    char **arguments;   // of main()
    char **environment; // as it was first: setenv() makes another
} title;

// The end of the strings, as far as each begins where the one before has ended.
static char *end_of(char **strings, char *end)
{
    for (; *strings && *strings == end; strings++)
        end += strlen(*strings) + 1;
    return end;
}

// In one piece of memory, as strings go out of the environment one by one. NULL: at the very start
// there is none, and the program goes on without it.
static char **copy_strings(char **strings)
{
    size_t count = 0;
    size_t bytes = 0;
    for (; strings[count]; count++)
        bytes += strlen(strings[count]) + 1;
    char **copy = calloc(1, (count + 1) * sizeof(*copy) + bytes);
    char *at = copy ? (char *)(copy + count + 1) : NULL;
    for (size_t i = 0; copy && i < count; i++) {
        size_t length = strlen(strings[i]) + 1;
        copy[i] = memcpy(at, strings[i], length);
        at += length;
    }
    return copy;
}

// What follows the verb, in one line.
static char *join_options(int argc, char **argv)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    for (int i = 2; i < argc; i++)
        fprintf(out, " %s", argv[i]);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

char **fl_title_begin(int argc, char **argv)
{
    if (argc < 1)
        return argv;
    char **arguments = copy_strings(argv);
    char **environment = environ ? copy_strings(environ) : NULL;
    char *options = join_options(argc, argv);
    if (!arguments || !environment || !options) {
        free(options);
        return argv;
    }
    char *end = end_of(argv, argv[0]);
    end = end_of(environ, end);
    title.place = argv[0];
    title.room = (size_t)(end - argv[0]);
    title.options = options;
    title.arguments = arguments;
    title.environment = environment;
    environ = environment;
    program_invocation_name = arguments[0];
    char *slash = strrchr(arguments[0], '/');
    program_invocation_short_name = slash ? slash + 1 : arguments[0];
    return arguments;
}

void fl_title_set(const char *role)
{
    char name[64];
    snprintf(name, sizeof(name), "faultline-%s", role);
    prctl(PR_SET_NAME, name); // the kernel cuts it
    if (!title.place)
        return;
    memset(title.place, 0, title.room);
    snprintf(title.place, title.room, "faultline: %s%s", role, title.options);
}
