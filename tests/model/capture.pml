/* SPDX-License-Identifier: Apache-2.0
 *
 * Captures (docs/engine.md), for spin: the kernel's side of a userfaultfd, a guest of two threads, the
 * owner of the VM, the process that takes the checkpoint, deaths, and lanes. README.md says what is
 * asked of it, what stands for what, and what is left out. Each BROKEN() leaves out or turns around one
 * rule: spin must find an error then.
 */

/* What a run has, from the environment (the script `check` sets it). */
c_decl {
static int setting(const char *name, int preset)
{
    const char *value = getenv(name);
    return value ? atoi(value) : preset;
}
}

#define MOST_PAGES 2
byte pages;      /* one or two */
byte operations; /* of the guest, in all */
byte captures;   /* one after another */
bool keep;       /* the pages stay armed from one capture to the next */
byte deaths;     /* of engines */
byte lanes;      /* times that a thread begins anew behind a call, and has forgotten what came of it */
byte signals;    /* times that a thread that waits takes its fault back, and asks again */
byte ahead;      /* pages that come by replay or fill */
byte aborts;     /* times that the process that takes the checkpoint dies */
byte releases;   /* times that the server lets the VM go */
byte broken;     /* the rule that is broken; 0: none */

#define BROKEN(rule) (broken == rule)
#define PROTECTION_LEFT_OUT 1
#define READ_BEFORE_SAVE 2
#define DONE_BEFORE_BYTES 3
#define UNREGISTER_WHILE_CAPTURING 4
#define INSTALL_NOT_NOTED 5
#define KEEP_WITHOUT_REMOVALS 6
#define WORD_COMES_LATE 7
#define SUCCESSOR_FORGETS 8
#define INSIST 9
#define FREEZE_ONCE 10
#define FILLING_FORGOTTEN 11
#define DOUBT_IGNORED 12
#define NOTED_AFTERWARDS 13
#define ZEROS_OF_THE_END 14
#define SLOW_DROPS 15
#define COPIED_TOO_EARLY 16

#define WRITERS 1 /* of the two threads; the other one only gives pages back */
#define GUESTS 2
#define ALL_PAGES(p, what) p = 0; do :: p < pages -> what; p++ :: else -> p = 0; break od

/* A page's bytes are a number. */
#define ZEROS 0
#define IMAGE 1 /* as in the image that the VM is served from */
#define WRITTEN 2 /* ... and above: each write has a number of its own */

/* --- the kernel: one userfaultfd, and the pages that are registered with it --- */

bool present[MOST_PAGES];
bool armed[MOST_PAGES]; /* write-protected */
byte bytes[MOST_PAGES];
bool registered = true;

mtype:thread = {RUNS, MISSES, WRITES, REMOVES, TOLD, DROPS};
mtype:thread thread[GUESTS]; /* what a thread waits for; RUNS: for nothing */
bool unread[GUESTS];         /* its message */
byte at[GUESTS];             /* the page that it is about */
byte changing;               /* mmap_changing: REMOVEs in flight */

#define REMOVE_WAITS (thread[0] == REMOVES || thread[1] == REMOVES)
#define FAULTS(g) ((thread[g] == MISSES || thread[g] == WRITES) && unread[g])
#define PENDING (FAULTS(0) + FAULTS(1))

inline wake(g, p)
{
    if
    :: (thread[g] == MISSES || thread[g] == WRITES) && at[g] == p -> thread[g] = RUNS; unread[g] = false
    :: else
    fi
}

inline wake_page(p) { wake(0, p); wake(1, p) }

/* --- the guest --- */

byte stamp = WRITTEN;
byte should[MOST_PAGES]; /* what its threads have to see, if none of them drops the page just now */
bool pause;         /* asked for; they stop between two operations */
byte busy;          /* threads within one */

/* Between the end of mmap_changing and the drop of the page there are a few instructions of the kernel. That nothing
 * of the engine comes in between is not certain: README.md. */
#define TOLD_OF(g, p) ((thread[g] == TOLD || thread[g] == DROPS) && at[g] == p)
#define GOING(p) ((TOLD_OF(0, p) || TOLD_OF(1, p)) && !BROKEN(SLOW_DROPS))
#define DROPPED(g, p) ((thread[g] == REMOVES || thread[g] == TOLD || thread[g] == DROPS) && at[g] == p)

proctype guest(byte me)
{
    byte p = 0;
end_next:
    atomic {
        operations > 0 && !pause -> operations--; busy++;
        p = 0;
        do :: p < pages - 1 -> p++ :: break od
        if
        :: me < WRITERS
        :: goto give_back
        fi
    }
write:
    atomic {
        if
        :: registered && !present[p] -> thread[me] = MISSES; unread[me] = true; at[me] = p
        :: registered && present[p] && armed[p] -> thread[me] = WRITES; unread[me] = true; at[me] = p
        :: else ->
            assert(bytes[p] == should[p] || DROPPED(0, p) || DROPPED(1, p));
            present[p] = true; bytes[p] = stamp; should[p] = stamp; stamp++;
            busy--; p = 0; at[me] = 0;
            goto end_next
        fi
    }
    if
    :: atomic { thread[me] == RUNS -> goto write }
    :: atomic { signals > 0 && thread[me] != RUNS -> signals--; thread[me] = RUNS; unread[me] = false; goto write }
    fi;
give_back:
    /* madvise(MADV_DONTNEED): its event is queued, and the thread sleeps until it was read. A pause does not wait
     * for this. */
    atomic {
        at[me] = p;
        busy--;
        if
        :: registered -> thread[me] = REMOVES; changing++
        :: else -> thread[me] = DROPS
        fi
    }
    thread[me] != REMOVES;
    if
    :: atomic { thread[me] == TOLD -> thread[me] = DROPS; changing-- }
    :: thread[me] == DROPS
    fi
    atomic {
        present[p] = false; armed[p] = false; bytes[p] = ZEROS; should[p] = ZEROS;
        at[me] = 0; p = 0;
        thread[me] = RUNS;
        goto end_next
    }
}

/* --- what outlives an engine: the VM's state memfd --- */

bool removed[MOST_PAGES];
bool inbox[MOST_PAGES]; /* a REMOVE that was read, and not acted on */
bool word;         /* there may be protected pages */
bool installed[MOST_PAGES];
byte filling = MOST_PAGES;

/* --- what the engine shares with the process that takes the checkpoint --- */

mtype:order = {NOTHING, CAPTURE, FREEZE, COMMIT};
mtype:order order = NOTHING;
bool connected;
mtype:phase = {NONE, ARMING, READY, FREEZING, FROZEN, COPIED, KEPT};
mtype:phase phase = NONE;
bool done[MOST_PAGES];
bool data[MOST_PAGES];
bool zero[MOST_PAGES];
byte buffer[MOST_PAGES];

/* What the pages of the guest were at the freeze, and what a reader finds of them. */
byte truth[MOST_PAGES];
byte image[MOST_PAGES]; /* the last checkpoint that was published */
bool chained;      /* it is the parent of this one */
#define VALUE(p) (data[p] -> buffer[p] : (zero[p] -> ZEROS : (chained -> image[p] : IMAGE)))

/* --- the heap of an engine --- */

bool unarmed[MOST_PAGES];
bool changed[MOST_PAGES];  /* since the freeze, where pages stay armed */
bool doubtful[MOST_PAGES]; /* its end was told, and may not have come about */
bool retry[MOST_PAGES];    /* to be un-protected; a REMOVE was in flight */
bool again[MOST_PAGES];    /* a fault that is parked for the same reason */
bool undoing;
bool tracked;         /* `changed` says what differs from the parent */


#define ANY_UNARMED (unarmed[0] || unarmed[pages - 1])
#define STILL_THERE(p) (doubtful[p] && present[p])
#define ANY_STILL_THERE ((STILL_THERE(0) || STILL_THERE(pages - 1)) && !BROKEN(DOUBT_IGNORED))
#define CAPTURING (phase == ARMING || phase == READY || phase == FREEZING || phase == FROZEN || phase == COPIED)
/* Within a step, behind a call of the kernel: the engine dies, or the thread is taken from and begins anew. To die
 * between two steps is the same as to die at the end of the first. */
#define CALLED if :: deaths > 0 -> deaths--; goto died :: lanes > 0 -> lanes--; goto moved :: skip fi

/* One call that protects. What was owed to a thread is not any more: it is woken, and faults again. */
inline arm(p)
{
    armed[p] = present[p];
    unarmed[p] = false;
    if :: retry[p] -> retry[p] = false; wake_page(p) :: else fi
}

/* A page that is there now may be written without a fault from now on. */
inline note_unarmed(p)
{
    if
    :: CAPTURING || phase == KEPT -> unarmed[p] = true; changed[p] = true
    :: else
    fi
}

/* Fails the capture, or ends the tracking: everything is un-protected, step by step. */
inline give_up()
{
    atomic {
        phase = NONE; connected = false; order = NOTHING; tracked = false;
        undoing = word;
        ALL_PAGES(q, unarmed[q] = false; changed[q] = false; doubtful[q] = false; retry[q] = false)
    }
}

/* Once the page's bytes are safe. Leaves an EAGAIN for later. */
inline unprotect(p)
{
    atomic {
        if :: BROKEN(NOTED_AFTERWARDS) :: else -> note_unarmed(p) fi;
        if
        :: changing > 0 -> retry[p] = true
        :: else -> armed[p] = false; retry[p] = false; wake_page(p)
        fi;
        CALLED;
        if :: BROKEN(NOTED_AFTERWARDS) -> note_unarmed(p) :: else fi
    }
}

/* Of a page that is present, not done, and protected. */
inline save(p)
{
    if
    :: atomic { BROKEN(DONE_BEFORE_BYTES) -> data[p] = true; done[p] = true }
    :: atomic { !BROKEN(DONE_BEFORE_BYTES) -> skip }
    fi;
    atomic {
        assert(present[p]); /* else the copier waits for itself */
        buffer[p] = bytes[p];
        CALLED;
        data[p] = true; done[p] = true
    }
}

/* What the page map says decides. */
inline look_and_save(p)
{
    if
    :: atomic { done[p] -> skip }
    :: atomic { !done[p] -> there = present[p]; protected = armed[p]; CALLED }
        if
        :: atomic { !there -> done[p] = true }
        :: atomic { there && !protected -> protected = false }
            assert(false); /* it fails the capture, so nothing is torn; but it never has a reason to */
            give_up()
        :: atomic { there && protected -> protected = false }
            save(p)
        fi
    fi
}

/* A page becomes present: the one hook of install.c. */
inline note_installed(p)
{
    installed[p] = true; doubtful[p] = false;
    if
    :: BROKEN(INSTALL_NOT_NOTED)
    :: else ->
        if
        :: phase == FROZEN && !done[p] -> done[p] = true
        :: else
        fi;
        note_unarmed(p)
    fi
}

inline install(p)
{
    atomic {
        filling = p;
        came = false;
        !GOING(p) || changing > 0;
        if
        :: changing > 0 -> again[p] = true
        :: changing == 0 && present[p] -> again[p] = false; wake_page(p) /* EEXIST */
        :: changing == 0 && !present[p] ->
            present[p] = true; armed[p] = false; bytes[p] = (removed[p] -> ZEROS : IMAGE);
            again[p] = false; came = true; wake_page(p)
        fi;
        CALLED
    }
    atomic {
        if :: came -> note_installed(p) :: else fi;
        filling = MOST_PAGES; came = false
    }
}

/* One message. Faults come before events; of events the newest may come first. */
inline read_one()
{
    atomic {
        if
        :: FAULTS(0) -> who = 0
        :: FAULTS(1) -> who = 1
        :: !FAULTS(0) && !FAULTS(1) && thread[0] == REMOVES -> who = 0; inbox[at[0]] = true; thread[0] = TOLD
        :: !FAULTS(0) && !FAULTS(1) && thread[1] == REMOVES -> who = 1; inbox[at[1]] = true; thread[1] = TOLD
        :: else -> who = GUESTS
        fi;
        if
        :: who < GUESTS -> p = at[who]; kind = thread[who]; unread[who] = false;
            if :: kind == TOLD && !present[p] -> should[p] = ZEROS :: else fi
        :: else -> p = 0; kind = RUNS
        fi;
        who = 0
    }
}

inline act_on_removal(p)
{
        removed[p] = true; installed[p] = false;
        if :: CAPTURING || phase == KEPT -> doubtful[p] = true :: else fi;
        if :: BROKEN(KEEP_WITHOUT_REMOVALS) :: else -> note_unarmed(p) fi;
        if
        :: phase == FROZEN && !done[p] ->
            if :: BROKEN(READ_BEFORE_SAVE) :: else -> give_up() fi
        :: else
        fi;
        inbox[p] = false
}

inline let_write(p)
{
    if
    :: atomic { phase == FROZEN && !done[p] -> skip }
        look_and_save(p)
    :: atomic { !(phase == FROZEN && !done[p]) -> skip }
    fi;
    unprotect(p)
}

inline act()
{
    if
    :: atomic { kind == TOLD -> act_on_removal(p) }
    :: kind == MISSES -> install(p)
    :: kind == WRITES -> let_write(p)
    :: kind == RUNS
    fi
}

proctype engine()
{
    byte p = 0, q = 0, who = 0, cursor = 0, lowered = 0;
    bool there = false, protected = false, came = false;
    mtype:thread kind = RUNS;
    goto serve;

died: /* its heap goes, its successor has the userfaultfd and the state memfd */
    atomic {
        phase = NONE; connected = false; order = NOTHING; tracked = false; undoing = false;
        ALL_PAGES(q, unarmed[q] = false; changed[q] = false; doubtful[q] = false; retry[q] = false; again[q] = false);
        cursor = 0; lowered = 0;
        undoing = word && !BROKEN(SUCCESSOR_FORGETS);
        goto succeed
    }

moved: /* the heap stays, and what was parked is dropped: its threads ask again */
    atomic { ALL_PAGES(q, retry[q] = false; again[q] = false) }

succeed:
    atomic {
        filling == MOST_PAGES || !GOING(filling);
        if
        :: filling < MOST_PAGES && present[filling] && !BROKEN(FILLING_FORGOTTEN) -> note_installed(filling)
        :: else
        fi;
        filling = MOST_PAGES;
        ALL_PAGES(p, if :: inbox[p] -> act_on_removal(p) :: else fi);
        ALL_PAGES(q, wake_page(q));
        kind = RUNS; there = false; protected = false; came = false
    }

serve:
end_serve:
    do
    /* --- messages --- */
    :: phase != FROZEN && (PENDING > 0 || REMOVE_WAITS) -> read_one(); act()
    :: atomic { phase == FROZEN && PENDING > 0 -> skip }
            /* The guest may take the fault back between the look and the read: then this reads an event. */
            read_one(); act()
    :: atomic { phase == FROZEN && PENDING == 0 && REMOVE_WAITS -> skip }
            /* Threads that are found in madvise(): a page each. One that comes later is not among them. */
            atomic {
                who = 0;
                if :: thread[0] == REMOVES && !BROKEN(READ_BEFORE_SAVE) -> who = who + 1 :: else fi;
                if :: thread[1] == REMOVES && !BROKEN(READ_BEFORE_SAVE) -> who = who + 2 :: else fi;
                p = at[0]; q = at[1]
            }
            if :: phase == FROZEN && who % 2 == 1 -> look_and_save(p) :: else fi;
            if :: phase == FROZEN && who / 2 == 1 -> look_and_save(q) :: else fi;
            q = 0; who = 0;
            read_one(); act()
    /* --- what a REMOVE in flight has put off --- */
    :: changing == 0 && retry[0] -> p = 0; unprotect(p)
    :: changing == 0 && again[0] -> p = 0; install(p)
    :: changing == 0 && retry[1] -> p = 1; unprotect(p)
    :: changing == 0 && again[1] -> p = 1; install(p)
    :: BROKEN(INSIST) && (retry[0] || again[0] || retry[1] || again[1]) -> changing == 0
    /* --- pages ahead of their touch --- */
    :: atomic { ahead > 0 && registered -> ahead--; p = 0; do :: p < pages - 1 -> p++ :: break od } ; install(p)
    /* --- the server lets it go, once all of it is there --- */
    :: atomic { releases > 0 && changing == 0 && (present[0] && present[pages - 1]) -> releases-- }
        if :: phase != NONE && !BROKEN(UNREGISTER_WHILE_CAPTURING) -> give_up() :: else fi;
        /* What is protected now would stay so. */
        do
        :: undoing && changing == 0 ->
            atomic { ALL_PAGES(q, armed[q] = false; wake_page(q)); word = false; undoing = false }
        :: undoing && REMOVE_WAITS -> read_one(); act()
        :: !undoing -> break
        od;
        atomic { registered = false; ALL_PAGES(q, armed[q] = false; wake_page(q)) }
    /* --- everything is un-protected after a capture, or by a successor --- */
    :: undoing && changing == 0 ->
        p = 0;
        do
        :: atomic { p < pages && changing == 0 -> armed[p] = false; wake_page(p); p++; CALLED }
        :: p < pages && changing > 0 -> break
        :: p == pages -> break
        od;
        if
        :: p == pages -> word = false; undoing = false
        :: else
        fi;
        p = 0
    /* --- the capture --- */
    :: !connected && phase != NONE -> give_up() /* the process that takes the checkpoint is dead */
    :: order == CAPTURE && !undoing && registered ->
        order = NOTHING;
        word = !BROKEN(WORD_COMES_LATE);
        atomic {
            cursor = 0;
            tracked = (phase == KEPT);
            if
            :: tracked
            :: else -> ALL_PAGES(q, unarmed[q] = true; changed[q] = true; doubtful[q] = removed[q] && !installed[q])
            fi;
            ALL_PAGES(q, done[q] = false; data[q] = false; zero[q] = false; buffer[q] = ZEROS);
            phase = ARMING
        }
    :: atomic { phase == ARMING && cursor < pages && (changing == 0 || !unarmed[cursor]) ->
            if
            :: !unarmed[cursor] -> cursor++
            :: unarmed[cursor] -> arm(cursor); cursor++
            fi;
            CALLED
        }
    :: phase == ARMING && cursor == pages -> phase = READY
    :: phase == READY && order == FREEZE -> order = NOTHING; cursor = 0; phase = FREEZING
    :: atomic { phase == FREEZING && cursor < pages && (changing == 0 || !unarmed[cursor]) ->
            if
            :: !unarmed[cursor]
            :: unarmed[cursor] && changing == 0 ->
                if :: BROKEN(PROTECTION_LEFT_OUT) -> unarmed[cursor] = false :: else -> arm(cursor) fi
            fi;
            cursor++;
            CALLED
        }
    :: phase == FREEZING && cursor == pages && ANY_UNARMED ->
        /* What came while a REMOVE in flight held it up. */
        if
        :: atomic { !BROKEN(FREEZE_ONCE) -> cursor = 0 }
        :: atomic { BROKEN(FREEZE_ONCE) -> ALL_PAGES(q, unarmed[q] = false) }
        fi
    :: atomic { phase == FREEZING && cursor == pages && !ANY_UNARMED && !ANY_STILL_THERE ->
            ALL_PAGES(q, doubtful[q] = false);
            ALL_PAGES(q, truth[q] = should[q]);
            ALL_PAGES(q, done[q] = !changed[q]; zero[q] = changed[q] && removed[q]; changed[q] = false);
            cursor = 0; lowered = 0;
            phase = FROZEN
        }
    :: phase == FROZEN && cursor < pages ->
        p = cursor;
        look_and_save(p);
        cursor++;
        p = 0
    /* What was copied is un-protected later, many pages in a call, or at the end. */
    :: phase == FROZEN && !keep && lowered < cursor ->
        p = lowered;
        if
        :: !retry[p] -> unprotect(p)
        :: else
        fi;
        lowered++;
        p = 0
    :: phase == FROZEN && cursor >= pages &&
            (keep || BROKEN(COPIED_TOO_EARLY) || (lowered >= pages && !retry[0] && !retry[pages - 1])) ->
        if
        :: atomic { BROKEN(ZEROS_OF_THE_END) -> ALL_PAGES(q, zero[q] = removed[q]) }
        :: atomic { !BROKEN(ZEROS_OF_THE_END) -> skip }
        fi;
        phase = COPIED;
        cursor = 0
    :: phase == COPIED && order == COMMIT && keep -> order = NOTHING; phase = KEPT
    :: phase == COPIED && order == COMMIT && !keep -> order = NOTHING; word = false; phase = NONE
    /* --- no page stays protected --- */
    :: phase == NONE && !undoing && (armed[0] || armed[pages - 1]) -> assert(false)
    od
}

/* --- the process that takes checkpoints, of one VM one after another --- */

#define GONE (!connected)

proctype checkpoint()
{
    byte p = 0;
next:
    if
    :: atomic { captures > 0 && registered && order == NOTHING && phase == NONE -> chained = false; connected = true }
    :: atomic { captures > 0 && registered && order == NOTHING && phase == KEPT -> chained = true }
    :: atomic { captures == 0 || !registered -> connected = false; goto over }
    fi;
    atomic { captures--; order = CAPTURE }
    if
    :: atomic { phase == READY -> pause = true }
    :: atomic { GONE || !registered -> goto failed }
    :: atomic { aborts > 0 -> aborts--; goto failed }
    fi;
    atomic { busy == 0; if :: GONE -> goto failed :: else -> order = FREEZE fi }
    if
    :: atomic { phase == FROZEN || phase == COPIED -> pause = false }
    :: atomic { GONE -> goto failed }
    :: atomic { aborts > 0 -> aborts--; goto failed }
    fi;
    if
    :: atomic { phase == COPIED -> ALL_PAGES(p, assert(done[p]); image[p] = VALUE(p)); order = COMMIT }
    :: atomic { GONE -> goto failed }
    :: atomic { aborts > 0 -> aborts--; goto failed }
    fi;
    if
    :: atomic { phase == KEPT && order == NOTHING -> goto next }
    :: atomic { GONE || (phase == NONE && order == NOTHING) -> connected = false; goto next }
    fi;
failed:
    atomic { pause = false; connected = false; order = NOTHING }
    goto next;
over:
    skip
}

/* What it may read, and pack, at any moment. */
#define WRONG(p) ((phase == FROZEN || phase == COPIED) && done[p] && VALUE(p) != truth[p])

proctype reader()
{
end_right:
    if
    :: atomic { WRONG(0) -> assert(false) }
    :: atomic { WRONG(pages - 1) -> assert(false) }
    fi
}

init
{
    byte p = 0;
    atomic {
        c_code {
            now.pages = setting("PAGES", 2);
            now.operations = setting("OPERATIONS", 2);
            now.captures = setting("CAPTURES", 1);
            now.keep = setting("KEEP", 0);
            now.deaths = setting("DEATHS", 0);
            now.lanes = setting("LANES", 0);
            now.signals = setting("SIGNALS", 0);
            now.ahead = setting("AHEAD", 0);
            now.aborts = setting("ABORTS", 0);
            now.releases = setting("RELEASES", 0);
            now.broken = setting("BROKEN", 0);
        };
        do
        :: p < pages ->
            if
            :: present[p] = true; installed[p] = true; bytes[p] = stamp; should[p] = stamp; stamp++
            :: present[p] = false; should[p] = IMAGE
            :: present[p] = false; removed[p] = true; should[p] = ZEROS
            fi;
            p++
        :: else -> break
        od;
        p = 0;
        ALL_PAGES(p, image[p] = IMAGE);
        thread[0] = RUNS; thread[1] = RUNS;
        run guest(0); run guest(1); run engine(); run checkpoint(); run reader()
    }
}
