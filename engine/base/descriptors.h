// SPDX-License-Identifier: Apache-2.0
//
// The table of descriptors of this process: how many there may be, how many there are, and how many
// are kept free. Any thread.
#ifndef FAULTLINE_BASE_DESCRIPTORS_H
#define FAULTLINE_BASE_DESCRIPTORS_H

#include <stdbool.h>

// Has as many as the hard limit allows, and files of any size: memory that is a file is held to the
// limit of files, too.
void fl_descriptors_raise(void);
// Makes the table as large as it may become. Once there are threads, each time that it doubles
// waits 10 to 30 ms for the kernel: before the first of them nothing waits.
void fl_descriptors_grow(void);
// If the limit was lowered (prlimit) below what is open: raises it to that and `more`, beyond the
// hard limit if it must be and may be.
void fl_descriptors_fit(unsigned more);
// RLIMIT_NOFILE as it is now.
unsigned fl_descriptors_limit(void);
// How many are open. Where the kernel does not say (before 6.2) each is looked at, which takes
// time.
unsigned fl_descriptors_used(void);
// How many are kept free for what VMs need that are served: a handshake that is received, an image
// that is opened, a successor that is sent all. Of every limit that a server can start with.
unsigned fl_descriptors_reserve(void);
// True if `count` more could be opened now. Where the kernel does not say how many are open it
// takes some 50 ns for each of them, more with a filter of system calls.
bool fl_descriptors_free(unsigned count);
// How many more, up to `most`.
unsigned fl_descriptors_room(unsigned most);

#endif
