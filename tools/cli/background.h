// SPDX-License-Identifier: Apache-2.0
//
// Work that can wait for others on the host. Main thread, before other threads are started.
#ifndef FAULTLINE_TOOLS_CLI_BACKGROUND_H
#define FAULTLINE_TOOLS_CLI_BACKGROUND_H

// The process yields processors and disks to others from here on, but never starves: it holds a
// lock of the store. Returns what background_end() needs.
int background_begin(void);
// Takes that back, if the kernel allows it.
void background_end(int before);

#endif
