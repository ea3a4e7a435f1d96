// SPDX-License-Identifier: Apache-2.0
//
// A `faultline` process under test.
//
// The binary is named by the environment FAULTLINE_BIN (set by CMake), so that uninstrumented tests
// can drive a sanitized server. Every wait has a deadline; a wait that fails prints the server's
// log to stderr and returns false or NULL. Everything made here is removed by server_stop() and
// temp_remove(); a server dies with the test.
#ifndef FAULTLINE_TESTS_SUPPORT_SERVER_H
#define FAULTLINE_TESTS_SUPPORT_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "tests/support/temp.h"

enum { TEST_DEADLINE_MS = 60000, SERVER_ARGS = 32 };

// In the last line of what a sanitizer says of a process before it aborts it.
#define SERVER_SANITIZER_SUMMARY "SUMMARY: "

// In the line of the log that an engine makes for each call that is not on its list.
#define SERVER_UNLISTED_CALL "event=call_unlisted"

struct server {
    pid_t pid;           // of the keeper, or of a `handler`; 0: not running
    unsigned deaths;     // of engines that the test means to cause
    char log[TEST_PATH]; // its stderr
    char out[TEST_PATH]; // its stdout
};

// Starts `faultline ARGS...` (NULL-terminated, without argv[0]), its output going to files
// DIR/NAME.log and DIR/NAME.out; no wait.
void server_spawn(struct server *server, const struct temp *temp, const char *name,
                  const char *const *args);
// The same, then waits for event=ready.
bool server_start(struct server *server, const struct temp *temp, const char *name,
                  const char *const *args);
// `faultline serve --store STORE --sockets DIR/sockets --control DIR/control.sock EXTRA...`, ready.
// EXTRA may be NULL.
bool server_serve(struct server *server, const struct temp *temp, const char *store,
                  const char *const *extra);

// SIGTERM, then waits: the exit status, 128 + signal if a signal ended it, -1 (and SIGKILL) if it
// would not end, or an engine had died that was not meant to, or made a system call that is not on
// its list.
int server_stop(struct server *server);
// SIGKILL to the keeper and the engine, and their ends.
void server_kill(struct server *server);
// To the keeper alone: the engine goes on.
void server_kill_keeper(struct server *server);
// The process that serves.
pid_t server_engine(const struct server *server);
// SIGKILL to the engine, a death that is meant, and waits until its successor serves: before that
// nobody could say which process server_engine() is. False if that does not happen in time.
bool server_kill_engine(struct server *server);
// The first thread of the engine with this name; 0: there is none.
pid_t server_engine_thread(const struct server *server, const char *name);
// SIGSTOP to the engine, and waits until it has stopped; SIGCONT.
void server_pause(const struct server *server);
void server_resume(const struct server *server);

// Waits until the log has at least `count` lines that contain all of `text`.
bool server_wait_log(const struct server *server, const char *text, unsigned count);
// How many there are now. A thread of the server's own writes the log: a line about what has just
// been seen may be a moment late.
unsigned server_count_log(const struct server *server, const char *text);
// Waits for so many, and returns how many there are then.
unsigned server_logs(const struct server *server, const char *text, unsigned count);
// The first line that contains `text`, without its end; false if there is none.
bool server_find_log(const struct server *server, const char *text, char *ret_line, size_t size);
void server_print_log(const struct server *server);
// Open descriptors of the process.
unsigned server_descriptors(const struct server *server);
// Its resident memory, most of it so far.
long server_memory_kib(const struct server *server);

// Runs `faultline ARGS...` to its end (twice the deadline at most). The exit status; stdout and
// stderr together in ret_output (may be NULL).
int faultline_run(char *ret_output, size_t size, const char *const *args);

// Calls condition(arg) until it is true or the deadline has passed.
bool wait_until(bool (*condition)(void *arg), void *arg);

// Condition: a server listens at the path. The mode of its socket is 0 until it does
// (engine/base/unix_socket.c): a client that comes earlier is told ECONNREFUSED.
bool socket_is_open(void *path);

// Condition: the process of the pid_t has ended, whether its parent has reaped it (an init that
// does not, in a container, keeps its number for ever) or not.
bool process_ended(void *pid);

// Signal masks and handlers as a fresh program has them, and death with the parent: call in a
// forked child before exec, as Criterion's workers start with SIGCHLD blocked and SIGINT ignored.
void child_setup(void);

#endif
