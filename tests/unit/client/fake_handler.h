// SPDX-License-Identifier: Apache-2.0
//
// A handler for a client under test. It takes one handshake exactly as it was sent and, if the test
// says so, serves its faults on a thread. Every wait has a deadline. One thread at a time may call
// it.
#ifndef FAULTLINE_TESTS_UNIT_CLIENT_FAKE_HANDLER_H
#define FAULTLINE_TESTS_UNIT_CLIENT_FAKE_HANDLER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum { FAKE_TEXT = 65536, FAKE_FDS = 4 };

struct fake_handler {
    int listening;
    int connection; // -1 before fake_receive()
    int userfaultfd;
    size_t fds;    // descriptors that came with the message
    size_t length; // of text
    char text[FAKE_TEXT];
    pthread_t thread;
    size_t page_bytes;
    _Atomic unsigned faults;
    _Atomic unsigned removes;
};

// Listens at a path, relative to the directory DIR.
void fake_listen(struct fake_handler *fake, const char *directory, const char *name);
// Takes one connection, and one message with what came with it.
void fake_receive(struct fake_handler *fake);

// Fills page N of the memory with fake_byte(N), and pages that were removed with zeros, until the
// client closes its connection.
void fake_serve(struct fake_handler *fake, const void *memory, size_t page_bytes);
unsigned char fake_byte(size_t page);
void fake_join(struct fake_handler *fake);

void fake_close(struct fake_handler *fake);

#endif
