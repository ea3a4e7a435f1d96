// SPDX-License-Identifier: Apache-2.0
//
// The exit statuses of the command, which docs/operations.md lists. Functions that print a sentence
// when they fail return them, too.
#ifndef FAULTLINE_TOOLS_CLI_EXIT_STATUS_H
#define FAULTLINE_TOOLS_CLI_EXIT_STATUS_H

enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,     // after one sentence on stderr, or because a check found something
    EXIT_USAGE = 2,      // the arguments are wrong, as a sentence on stderr says
    EXIT_INCOMPLETE = 3, // the server has ended or drained, but VMs were killed or miss pages
};

#endif
