// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/protocol/metrics.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void metrics_scrape(const struct world *world, struct http_answer *answer)
{
    const char *control = temp_path(&world->temp, "control.sock");
    cr_assert_eq(http_ask(control, answer, "GET", "/metrics", ""), 200, "%s", answer->text);
}

double metrics_value(const struct http_answer *answer, const char *series)
{
    size_t length = strlen(series);
    for (const char *line = answer->body; line != NULL && *line != '\0';) {
        if (strncmp(line, series, length) == 0 && line[length] == ' ')
            return strtod(line + length, NULL);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return -1;
}

double metrics_value_of(const struct http_answer *answer, const char *metric, const char *label,
                        const char *of)
{
    char series[256];
    snprintf(series, sizeof(series), "faultline_%s{%s=\"%s\"}", metric, label, of);
    return metrics_value(answer, series);
}
