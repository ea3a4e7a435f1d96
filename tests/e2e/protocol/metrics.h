// SPDX-License-Identifier: Apache-2.0
//
// The metrics of a world's server, as a scraper reads them.
#ifndef FAULTLINE_TESTS_PROTOCOL_METRICS_H
#define FAULTLINE_TESTS_PROTOCOL_METRICS_H

#include "tests/e2e/protocol/http.h"
#include "tests/support/world.h"

// The answer to GET /metrics; an assertion fails if there is none.
void metrics_scrape(const struct world *world, struct http_answer *answer);
// The value of a series in it, by all of its name; -1: it is not there.
double metrics_value(const struct http_answer *answer, const char *series);
// That of faultline_METRIC{LABEL="OF"}.
double metrics_value_of(const struct http_answer *answer, const char *metric, const char *label,
                        const char *of);

#endif
