// SPDX-License-Identifier: Apache-2.0
//
// Closing what a client sent. close() may take as long as the client likes (a socket that lingers,
// a file of a FUSE server of its own), and so may the close of a socket in whose queue such a
// descriptor lies. So one thread does nothing else, and a client that holds it up delays no more
// than other closes.
#ifndef FAULTLINE_BASE_CLOSE_THREAD_H
#define FAULTLINE_BASE_CLOSE_THREAD_H

// Once a process, before the first descriptor comes. 0 or -errno.
int fl_close_thread_start(void);

// Any thread; never waits. Nothing happens for a negative fd. Before fl_close_thread_start() it
// closes at once.
void fl_close_later(int fd);

#endif
