/* SPDX-License-Identifier: Apache-2.0
 * fencing.pml - two generations of a job never run at once: the rules of docs/fencing.md as a spin model.
 *
 * One cluster, three nodes; generation 1 of a job is on node 0, and gen2 says that the cluster has given node 0 up, so that
 * generation 2 may run elsewhere.  Time goes in eighths of a lease.  At any moment a link between the cluster and a node can be
 * lost both ways, with a heartbeat still under way that may come much later, or only towards the node; node 0 and a peer can
 * lose each other; the cluster can stand still, or be started anew and forget what it knew.  At most CHANGES_MAX such changes,
 * one or two at once, at any times.  The keeper of node 0 may be one step late.  A host that is down is one that nothing
 * reaches and that says nothing.
 *
 *   safety     generation 1 runs only while gen2 is false; with -DJOIN the other nodes come later
 *   -DCALM     faults may stop at any moment; some steps later a generation runs
 *   -DDEAD     all but node 0 recover, in a life of the cluster that node 0 has confirmed: generation 2 may run
 *
 * Mutants, each of which pan must refute: -DNO_MAJORITY -DNO_FREEZE -DNO_UNHEARD -DNO_WINDOW -DCURRENT_LIST -DANY_LIST, and
 * -DNO_THAW with -DCALM.  tests/model/fencing.sh runs them all.
 */
#define LEASE    8
#define UNHEARD  1 /* silent for longer: heartbeats say so */
#define CUT_OFF  4 /* silent for longer: tells peers that it is cut off */
#define RUN      6 /* after contact */
#define VOUCHED  2 /* after peers vouched */
#define FRESH    1 /* age of a statement, and of a heartbeat, that counts */
#ifdef NO_WINDOW
#define WINDOW   1
#else
#define WINDOW   4
#endif
#define CALM_MAX 30

/* At first all is well; with -DJOIN only node 0 is there, and the others come when their links do. */
#ifdef JOIN
#define ALL      1
#define FIRST    0
#define N_ALL    1
#define AT_FIRST LOST
#else
#define ALL      7
#define FIRST    1
#define N_ALL    3
#define AT_FIRST OK
#endif

/* the nodes: silent since (saturated), and node 0's list, which always has node 0: bits 1 and 2 */
byte age[3];
byte list0 = ALL & 6;
bool is_of_life = true; /* list0 is of this life of the cluster */
byte left0 = RUN;       /* until the keeper freezes generation 1; 0: frozen */
byte said[3];           /* age of the newest statement of a peer that node 0 has; FRESH + 1: none */
bool has_lag = true;    /* the keeper may be late once more, until the next contact */
bool late[3];           /* an unmarked heartbeat is still under way, until the cluster takes it */

/* the cluster's life */
byte known = ALL;    /* bits: which nodes have registered */
byte second = FIRST; /* the node, 1 or 2, that came first of the two; 0: none yet */
byte heard[3];       /* since a heartbeat that counts */
byte seen0;          /* since any of node 0 */
byte told = N_ALL;   /* length of the list that node 0 has confirmed; 0: none */
byte maj[4];         /* by length: for how long at least half of that list has been heard */
bool was_away = true;

bool gen2, is_over; /* is_over: node 0 has heard of gen2 and killed generation 1 */
byte calm;
byte i, n, h, size;

/* what is broken */
mtype = { OK, LOST, DEAF }; /* DEAF: what node j says arrives, the answer does not */
mtype link[3] = OK;
bool is_near[3] = true; /* node 0 and that peer reach each other */
bool acts = true;       /* the cluster does not stand still */
byte changes;

#ifndef CHANGES_MAX
#define CHANGES_MAX 6
#endif

#define SAT(x, max) if :: x < max -> x++ :: else fi
#define BIT(j)      (1 << (j))
#define LEN(mask)   (((mask) & 1) + (((mask) >> 1) & 1) + (((mask) >> 2) & 1))
#define THIRD       (3 - second)

/* Bits of the first k nodes of the cluster's list; node 0 is taken for its first. */
#define PREFIX(k)   ((k) == 1 -> 1 : ((k) == 2 -> 1 | BIT(second) : 7))
#define IS_HEARD(j) (heard[j] <= FRESH)

inline time_passes()
{
    SAT(age[0], CUT_OFF + 1); SAT(age[1], CUT_OFF + 1); SAT(age[2], CUT_OFF + 1);
    SAT(heard[0], FRESH + 1); SAT(heard[1], FRESH + 1); SAT(heard[2], FRESH + 1);
    SAT(said[1], FRESH + 1); SAT(said[2], FRESH + 1);
    SAT(seen0, LEASE + 1);
    SAT(maj[1], WINDOW + 1); SAT(maj[2], WINDOW + 1); SAT(maj[3], WINDOW + 1);
#ifndef NO_FREEZE
    if
    :: left0 > 1 -> left0--
    :: left0 == 1 -> if :: has_lag && !calm -> has_lag = false :: left0 = 0 fi
    :: else
    fi
#endif
}

inline forget()
{
#ifdef ANY_LIST
    known = 1; /* the region tells that the job is there */
#else
    known = 0;
#endif
    second = 0; seen0 = 0; told = 0; was_away = true; is_of_life = false;
    heard[0] = FRESH + 1; heard[1] = FRESH + 1; heard[2] = FRESH + 1;
    late[0] = false; late[1] = false; late[2] = false
}

/* A heartbeat or a registration of node j has come. */
inline arrives(j, is_unmarked)
{
    if
    :: j > 0 && second == 0 -> second = j
    :: else
    fi;
    known = known | BIT(j);
    if
    :: is_unmarked -> heard[j] = 0
    :: else
    fi;
    if
    :: j == 0 -> seen0 = 0;
                 if
                 :: is_of_life && list0 == (known & 6) -> told = LEN(known)
                 :: else
                 fi
    :: else
    fi
}

inline is_answered(j)
{
    age[j] = 0;
    if
    :: j == 0 -> list0 = known & 6; is_of_life = true;
                 if
                 :: gen2 -> is_over = true; left0 = 0
#ifdef NO_THAW
                 :: !gen2 && left0 == 0
                 :: !gen2 && left0 > 0 -> left0 = RUN; has_lag = true
#else
                 :: else -> left0 = RUN; has_lag = true
#endif
                 fi
    :: else
    fi
}

/* Node j and the cluster in this step. */
inline talk(j)
{
    if
    :: late[j] && acts -> arrives(j, true); late[j] = false
    :: else
    fi;
    if
    :: acts && link[j] == OK -> arrives(j, age[j] <= UNHEARD); is_answered(j)
#ifdef NO_UNHEARD
    :: acts && link[j] == DEAF -> arrives(j, true)
#else
    :: acts && link[j] == DEAF -> arrives(j, age[j] <= UNHEARD)
#endif
    :: else
    fi
}

/* A link to the cluster is lost both ways, perhaps with a heartbeat on its way, or one way, or is back. */
inline relink(j)
{
    if
    :: link[j] != OK -> link[j] = OK
    :: link[j] != LOST -> link[j] = LOST; late[j] = (age[j] <= UNHEARD)
    :: link[j] != LOST -> link[j] = LOST
    :: link[j] != DEAF -> link[j] = DEAF
    fi
}

inline fault()
{
    changes++;
    if
    :: relink(0)
    :: relink(1)
    :: relink(2)
    :: is_near[1] = !is_near[1]
    :: is_near[2] = !is_near[2]
    :: acts = !acts
#ifndef DEAD
    :: forget(); acts = true
#endif
    fi
}

inline peers_speak()
{
    i = 1;
    do
    :: i < 3 ->
        if
        :: is_near[i] && age[i] > CUT_OFF -> said[i] = 0
        :: is_near[i] && age[i] <= CUT_OFF -> said[i] = FRESH + 1
        :: else
        fi;
        i++
    :: else -> break
    od;
    n = 1 + (((list0 & 2) && said[1] <= FRESH) -> 1 : 0) + (((list0 & 4) && said[2] <= FRESH) -> 1 : 0);
    if
    :: left0 > 0 && age[0] > CUT_OFF && 2 * n > LEN(list0 | 1) && left0 < VOUCHED -> left0 = VOUCHED
    :: left0 > 0 && list0 == 0 && left0 < RUN -> left0 = RUN /* the only node: for ever */
    :: else
    fi
}

inline look()
{
    size = 1;
    do
    :: size <= LEN(known) && (known & 1) ->
        h = (IS_HEARD(0) -> 1 : 0) + ((size >= 2 && IS_HEARD(second)) -> 1 : 0) + ((size == 3 && IS_HEARD(THIRD)) -> 1 : 0);
#ifndef NO_MAJORITY
        if
        :: 2 * h < size || was_away -> maj[size] = 0
        :: else
        fi;
#else
        maj[size] = WINDOW + 1;
#endif
        size++
    :: else -> break
    od;
    do
    :: size <= 3 -> maj[size] = 0; size++
    :: else -> break
    od;
    was_away = false
}

/* What has no influence any more would only multiply the states. */
inline forget_the_needless()
{
    if
    :: age[0] <= CUT_OFF || left0 == 0 -> said[1] = FRESH + 1; said[2] = FRESH + 1
    :: else
    fi;
    if
    :: told > 1 -> maj[1] = 0
    :: else
    fi;
    if
    :: told > 2 -> maj[2] = 0
    :: else
    fi;
    if
    :: left0 != 1 -> has_lag = true
    :: else
    fi;
    i = 0; n = 0; h = 0; size = 0
}

inline give_up()
{
#ifdef ANY_LIST
    size = (known & 1 -> LEN(known) : 9); /* whatever list node 0 has */
#else
#ifdef CURRENT_LIST
    size = (told -> LEN(known) : 9);
#else
    size = (told -> told : 9);
#endif
#endif
    if
    :: seen0 > LEASE && size <= 3 ->
        do
        :: size <= LEN(known) && maj[size] >= WINDOW -> size++
        :: else -> break
        od;
        if
        :: size > LEN(known) -> gen2 = true
        :: else
        fi
    :: else
    fi
}

active proctype world()
{
    said[1] = FRESH + 1; said[2] = FRESH + 1;
    link[1] = AT_FIRST; link[2] = AT_FIRST;
#ifdef JOIN
    heard[1] = FRESH + 1; heard[2] = FRESH + 1;
#endif
    do
    :: !is_over && calm < CALM_MAX ->
        atomic {
            time_passes();
            if
            :: calm -> calm++
            :: !calm && changes < CHANGES_MAX -> fault()
            :: !calm && changes < CHANGES_MAX - 1 -> fault(); fault()
            :: !calm
#ifdef DEAD
            :: !calm && told && changes == CHANGES_MAX ->
                        calm = 1; acts = true; link[0] = LOST; link[1] = OK; link[2] = OK
#endif
#ifdef CALM
            :: !calm -> calm = 1; acts = true; is_near[1] = true; is_near[2] = true;
                        link[0] = OK; link[1] = OK; link[2] = OK
#endif
            fi;
            d_step {
                was_away = was_away || !acts;
                talk(0); talk(1); talk(2);
                peers_speak();
                if
                :: acts && !gen2 -> look(); give_up()
                :: else
                fi
            }
            assert(!(gen2 && left0 > 0));
#ifdef DEAD
            assert(calm < CALM_MAX || gen2);
#else
            assert(calm < CALM_MAX || left0 > 0 || gen2);
#endif
            d_step {
                is_over = is_over || (gen2 && left0 == 0); /* for ever: only a contact thaws, and that kills */
                forget_the_needless()
            }
        }
    :: else -> break
    od
}
