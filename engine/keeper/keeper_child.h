// SPDX-License-Identifier: Apache-2.0
//
// One engine process, as the keeper sees it.
#ifndef FAULTLINE_KEEPER_KEEPER_CHILD_H
#define FAULTLINE_KEEPER_KEEPER_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <urcu/list.h>

#include "engine/keeper/keeper_settings.h"

struct fl_death_watch;

// Moves downwards only.
enum fl_child_phase {
    FL_CHILD_STARTING,
    FL_CHILD_READY,       // the standby
    FL_CHILD_TAKING_OVER, // is being sent the records
    FL_CHILD_SERVING,
    FL_CHILD_YIELDING, // told to touch nothing any more
    FL_CHILD_DYING,    // killed, or not ours to keep
};

struct fl_child {
    struct cds_list_head link;
    pid_t pid;
    int pidfd;
    int channel;                  // -1 once it has ended
    int life;                     // memfd of death_watch.h; -1: none yet
    struct fl_death_watch *lives; // NULL: not watched
    bool over;                    // and that was seen
    bool born;                    // we started it: its end is ours to collect
    enum fl_child_phase phase;
    uint64_t since_ns; // when the phase began
    // While it takes over: what to send next.
    struct fl_record *next;
    uint32_t next_slot;
    uint64_t pinged_ns; // 0: no answer is outstanding
    uint64_t oldest_ns; // for how long its oldest fault was waiting for storage when it answered
    uint64_t ended_ns;  // when its channel ended, and it should be about to end itself; 0: not yet
};

// In a process that a keeper has just made: lays off what is a keeper's alone.
void fl_child_leave_keeper(void);
// Runs the executable as `faultline engine OPTIONS...` with one end of a channel.
// `argv` is that of `faultline serve`, and it gets the settings. `lock` stays open in it until its
// end; -1: none. 0, or -errno with no process left. The caller frees the child.
int fl_child_start(int executable, char *const *argv, int lock, const struct fl_settings *settings,
                   struct fl_child **ret_child);
// One that runs already, at the other end of the channel. Takes the channel and the pidfd in every
// case. 0 or -errno.
int fl_child_adopt(int channel, int pidfd, pid_t pid, struct fl_child **ret_child);
// Takes the descriptor in every case. Its end will be seen before its memory is freed. 0 or -errno.
int fl_child_watch_life(struct fl_child *child, int life);
// True from the moment on when none of its threads runs any more, but within calls for single VMs,
// or when its end has come.
bool fl_child_is_over(struct fl_child *child);
// One of its threads is within a call for this VM, which may still fill a page of it.
bool fl_child_holds(const struct fl_child *child, uint64_t vm);
void fl_child_set_phase(struct fl_child *child, enum fl_child_phase phase);
void fl_child_kill(struct fl_child *child);
// Its end, in words; -EAGAIN if it has not come. ret_status: its exit status, -1 if a signal ended
// it or it cannot be known.
int fl_child_ended(struct fl_child *child, int *ret_status, char *ret_words, unsigned size);
void fl_child_free(struct fl_child *child);

#endif
