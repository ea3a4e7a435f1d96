// SPDX-License-Identifier: Apache-2.0
//
// The keeper's own state, shared by its parts: keeper.c (loop, signals, end), keeper_replace.c
// (which engine serves), keeper_hand_over.c (what it is told then), keeper_request.c (what the
// engine asks for), keeper_command.c (what it runs for the engine), keeper_upgrade.c,
// keeper_watch.c (is it alive), keeper_reserve.c (room for descriptors), keeper_inherit.c (from
// another keeper), keeper_replacement.c (to another keeper), keeper_ready.c (the file that says
// so), keeper_files.c (the mount of images as files).
#ifndef FAULTLINE_KEEPER_KEEPER_INTERNAL_H
#define FAULTLINE_KEEPER_KEEPER_INTERNAL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/clock.h"
#include "engine/base/pace.h"
#include "engine/keeper/keeper_child.h"
#include "engine/keeper/keeper_options.h"
#include "engine/keeper/keeper_records.h"
#include "engine/keeper/sockets_lock.h"

enum fl_upgrade_state {
    FL_UPGRADE_NONE,
    FL_UPGRADE_STARTING, // the new engine is the standby, and not ready yet
    FL_UPGRADE_TRIAL,    // it serves; the standby is of the old executable
    FL_UPGRADE_DONE,
    FL_UPGRADE_FAILED, // it never served
    FL_UPGRADE_ROLLED_BACK,
};

struct fl_upgrade {
    enum fl_upgrade_state state;
    int executable;    // the new one, while STARTING or in TRIAL; else -1
    int settings;      // the configuration file as it is now, likewise
    bool keeper_too;   // the keeper goes over to it when the trial is passed
    uint64_t until_ns; // deadline of STARTING, and of the hand-over
    uint64_t count;    // of all there were
    char reason[160];
};

// What it takes to start an engine, and to see it live.
enum { FL_KEEPER_RESERVE = 8 };

struct fl_keeper {
    const struct fl_keeper_options *options;
    int epoll_fd;
    int signal_fd;
    int executable;              // of engines
    struct fl_settings settings; // of engines
    char path[PATH_MAX];         // where our own was when we started
    struct fl_records records;
    struct cds_list_head children; // all that have not been collected
    struct fl_child *serving;      // from the moment on in which it begins to take over
    struct fl_child *standby;
    struct fl_upgrade upgrade;
    struct fl_sockets_lock sockets_lock;
    uint64_t generation;     // engines that have served
    uint64_t deaths;         // of engines that served
    uint64_t stall_since_ns; // since when no engine serves that VMs may wait for; 0: one does
    uint64_t stall_us;       // for how long none did when the last one took over; 0: none has yet
    unsigned failures;       // in a row, of engines that did not live
    uint64_t start_after_ns; // when the next engine may be started
    uint64_t short_since_ns; // since when none can be started; 0: one could
    uint64_t look_ns;        // when the engine is looked after next
    struct fl_pace pace;     // of looks; its news are all but answers to our question
    uint64_t watchdog_ns;    // when the service manager wants to hear next; FL_NEVER
    bool announced;          // READY=1 was sent
    bool leaving;            // as soon as an engine serves, which then goes on alone
    bool stopping;           // no VM may be left, then end
    uint64_t stop_ns;        // when VMs that are left are killed
    bool engine_ended;       // it said that nothing depends on it
    uint64_t fail_until_ns;  // failing closed: when to look which VMs live on; FL_NEVER
    bool done;               // leave the loop
    bool replaced;           // another keeper has everything
    unsigned at_start;       // descriptors that there were when it started
    bool incomplete;         // there was no room for something that the engine wanted to be kept
    unsigned reserved;       // of `reserve`
    int reserve[FL_KEEPER_RESERVE]; // places in the table, for the next standby
    char degraded[1024];            // what the engine lacks, for the service manager; "": nothing
    char trouble[160];              // why no standby can be started; "": it can
    int exit_status;
};

// keeper_replace.c: the ints are 0 or -errno.
int fl_keeper_watch_child(struct fl_keeper *keeper, struct fl_child *child);
// Of one that was adopted, and is not `serving`: it goes on without us. Frees the child.
void fl_keeper_let_go(struct fl_keeper *keeper, struct fl_child *child);
int fl_keeper_watch_life(struct fl_keeper *keeper, struct fl_child *child, int life);
void fl_keeper_start_standby(struct fl_keeper *keeper);
void fl_keeper_promote(struct fl_keeper *keeper);
void fl_keeper_served(struct fl_keeper *keeper, struct fl_child *child, uint64_t vms);
void fl_keeper_retire(struct fl_keeper *keeper, struct fl_child *child);
void fl_keeper_child_over(struct fl_keeper *keeper, struct fl_child *child);
void fl_keeper_child_ended(struct fl_keeper *keeper, struct fl_child *child);
void fl_keeper_send(struct fl_child *child, uint32_t type, uint64_t value);
void fl_keeper_tell_news(struct fl_keeper *keeper);
// Says in one line to the service manager how things are.
void fl_keeper_tell_manager(const struct fl_keeper *keeper);
// keeper_hand_over.c
// Sends the records that the child does not have yet, and SERVE after the last: what has no room in
// the channel is sent by the next call.
void fl_keeper_go_on_sending(struct fl_keeper *keeper, struct fl_child *child);
// VMs that a thread of another engine does not hold any more are served from now on.
void fl_keeper_free_held(struct fl_keeper *keeper);
// keeper_give_up.c
// SIGKILL to every VM, and waits for their ends, or poisons the pages of those that live on; the
// records go last.
void fl_keeper_fail_closed(struct fl_keeper *keeper, const char *reason);

// keeper_request.c: all that the child has sent so far.
void fl_keeper_receive(struct fl_keeper *keeper, struct fl_child *child);

// keeper_command.c
// Runs what an engine asks for. Takes none of the descriptors.
void fl_keeper_run_command(const char *arguments, const int fds[FL_CHANNEL_FDS]);
// Collects the commands that have ended.
void fl_keeper_collect_commands(const struct fl_keeper *keeper);

// keeper_reserve.c: descriptors. Records must not take what the next standby needs.
void fl_keeper_reserve(struct fl_keeper *keeper);
void fl_keeper_unreserve(struct fl_keeper *keeper);
// 1 + how many more records may take.
uint64_t fl_keeper_room(const struct fl_keeper *keeper);
// A message has lost its descriptors.
void fl_keeper_lost(struct fl_keeper *keeper, struct fl_child *child,
                    const struct fl_message *message);
// Asks for all of it again when there is room.
void fl_keeper_complete(struct fl_keeper *keeper);

// keeper_upgrade.c
void fl_keeper_upgrade(struct fl_keeper *keeper, const char *path, uint64_t flags);
void fl_keeper_upgrade_ready(struct fl_keeper *keeper);
void fl_keeper_upgrade_failed(struct fl_keeper *keeper, const char *reason);
// The engine that serves has died before the new one was ready.
void fl_keeper_upgrade_called_off(struct fl_keeper *keeper);
void fl_keeper_upgrade_due(struct fl_keeper *keeper, uint64_t now);
uint64_t fl_keeper_upgrade_next_due(const struct fl_keeper *keeper);
const char *fl_keeper_upgrade_name(enum fl_upgrade_state state);

// keeper_watch.c
// Something has happened: looks are often for a while.
void fl_keeper_stir(struct fl_keeper *keeper);
void fl_keeper_look(struct fl_keeper *keeper, uint64_t now);

// keeper_inherit.c
// -EBUSY: another keeper is alive; others: an engine serves that cannot be taken over.
int fl_keeper_inherit(struct fl_keeper *keeper);
// Becomes the executable, with everything that is held; returns only if that fails.
int fl_keeper_exec(struct fl_keeper *keeper, int executable);

// keeper_files.c: 0, or -errno after a sentence. Does nothing if there is a record of files
// already, or none are wanted.
int fl_keeper_mount_files(struct fl_keeper *keeper);
// Nothing is to serve them any more: who waits for a page gets SIGBUS, and the path goes, and the
// record. What another server has mounted meanwhile stays.
void fl_keeper_unmount_files(struct fl_keeper *keeper);

// keeper_replacement.c
// Gives everything to the keeper at the other end of the socket, or tells it why not. Takes the
// socket.
void fl_keeper_hand_on(struct fl_keeper *keeper, int socket);
// For the process of a keeper that was replaced: until it is told to end.
void fl_keeper_wait_for_end(void);

// keeper_ready.c
void fl_keeper_set_ready(const struct fl_keeper *keeper, bool ready);

#endif
