// SPDX-License-Identifier: Apache-2.0
//
// What this process is called in ps and top: "faultline: ROLE" and its options as its command line,
// and "faultline-ROLE", cut to 15 characters, as its name.
#ifndef FAULTLINE_BASE_TITLE_H
#define FAULTLINE_BASE_TITLE_H

// Makes room: moves the arguments and the environment elsewhere, since a command line is shown from
// where the kernel has put them. Returns the arguments. Call it first of all in main(), once; they
// live for ever. Without memory they stay, and the title stays what it is.
char **fl_title_begin(int argc, char **argv);
// Any thread, but one at a time. Another title replaces it.
void fl_title_set(const char *role);

#endif
