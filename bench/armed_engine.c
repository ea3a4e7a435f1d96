// SPDX-License-Identifier: Apache-2.0
//
// armed_engine: stands in for `faultline` as the executable of engines. The one that finds a token
// is the only one to take it: it runs `faultline` with the test point in the token set, and leaves
// a file that says so. All others run it as it is.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void take(const char *token)
{
    char path[4096];
    char point[128] = "";
    snprintf(path, sizeof(path), "%s.%d", token, (int)getpid());
    if (rename(token, path) != 0)
        return;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(point, sizeof(point), file) != NULL)
        setenv("FAULTLINE_KILL_AT", point, 1);
    fclose(file);
}

int main(int argc, char **argv)
{
    const char *token = getenv("FAULTLINE_CHAOS_TOKEN");
    const char *program = getenv("FAULTLINE_CHAOS_PROGRAM");
    if (token == NULL || program == NULL) {
        fputs("armed_engine: FAULTLINE_CHAOS_TOKEN and FAULTLINE_CHAOS_PROGRAM are not set\n",
              stderr);
        return 2;
    }
    if (argc > 1 && strcmp(argv[1], "engine") == 0) // a keeper would pass it on to all of them
        take(token);
    execv(program, argv);
    perror(program);
    return 127;
}
