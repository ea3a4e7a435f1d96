// SPDX-License-Identifier: Apache-2.0
#include "tests/support/checkpoint_page.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PROGRAM = 8192, LINE = 512 };

static void keep(const char *program, const char *to)
{
    FILE *file = fopen(to, "we");
    cr_assert(file && fputs(program, file) >= 0 && fclose(file) == 0, "%s", to);
}

void checkpoint_page_program(const char *word, const char *to)
{
    char line[LINE];
    char program[PROGRAM] = "";
    bool inside = false;
    unsigned found = 0;
    FILE *page = fopen(CHECKPOINT_PAGE, "re");
    cr_assert(page);
    while (fgets(line, sizeof(line), page)) {
        if (strcmp(line, "```\n") == 0) {
            inside = false;
            found += program[0] && strstr(program, word);
            if (program[0] && strstr(program, word))
                keep(program, to);
            program[0] = '\0';
        }
        size_t used = strlen(program);
        if (inside)
            snprintf(program + used, sizeof(program) - used, "%s", line);
        if (strcmp(line, "```python\n") == 0)
            inside = true;
    }
    fclose(page);
    cr_assert_eq(found, 1, "%u programs with %s", found, word);
}
