// SPDX-License-Identifier: Apache-2.0
//
// A client of POST /v1/checkpoints, which reads the events line by line. For Criterion: failures
// are assertions. Waits have the deadline of all tests.
#ifndef FAULTLINE_TESTS_E2E_CHECKPOINT_CLIENT_H
#define FAULTLINE_TESTS_E2E_CHECKPOINT_CLIENT_H

#include <stdbool.h>

enum { CHECKPOINT_CLIENT_LINE = 2048 };

#define EVENT(NAME) "{\"event\":\"" NAME "\""
#define FAILED(REASON) EVENT("failed") ",\"reason\":\"" REASON

// Orders one; the connection.
int checkpoint_client_order(const char *control, const char *body);
// False: no whole line comes.
bool checkpoint_client_reads(int fd, char line[CHECKPOINT_CLIENT_LINE]);
// Reads until a line begins so. False if another event of those that say the end comes, or the end.
bool checkpoint_client_hears(int fd, const char *begins);
// Nothing more comes; closes it.
bool checkpoint_client_ends(int fd);

#endif
