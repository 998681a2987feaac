/* SPDX-License-Identifier: Apache-2.0
 * table.c - the slots of actors, which are made in chunks and never freed before the system, and the registry of names.
 *
 * The registry is an open-addressing hash from the hash of a path to its actor.  64 bits do not collide among the names of
 * one host; should they, the later name is refused as taken.
 */
#include "core.h"

struct orri_actor *orri_actor_at(struct orr_system *sys, uint32_t index)
{
    if (index >= sys->config.actors_max)
        return NULL;
    /* pairs with the release in add_chunk */
    struct orri_actor *chunk =
        atomic_load_explicit(&sys->chunks[index / ORRI_CHUNK], memory_order_acquire);
    return chunk ? &chunk[index % ORRI_CHUNK] : NULL;
}

static bool add_chunk(struct orr_system *sys)
{
    if (sys->n_slots >= sys->config.actors_max)
        return false;
    struct orri_actor *chunk = orri_alloc_lines(ORRI_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    memset(chunk, 0, ORRI_CHUNK * sizeof(*chunk));
    for (uint32_t i = ORRI_CHUNK; i-- > 0;) {
        chunk[i].index = sys->n_slots + i;
        chunk[i].life = 1;
        if (chunk[i].index >= sys->config.actors_max)
            continue;
        chunk[i].next_sibling = sys->free_slot;
        sys->free_slot = &chunk[i];
    }
    /* pairs with the acquire in orri_actor_at */
    atomic_store_explicit(
        &sys->chunks[sys->n_slots / ORRI_CHUNK], chunk, memory_order_release);
    sys->n_slots += ORRI_CHUNK;
    return true;
}

struct orri_actor *orri_slot_take(struct orr_system *sys)
{
    if (!sys->free_slot && !add_chunk(sys))
        return NULL;
    struct orri_actor *actor = sys->free_slot;
    sys->free_slot = actor->next_sibling;
    actor->next_sibling = NULL;
    atomic_fetch_add_explicit(&sys->n_actors, 1, memory_order_relaxed);
    return actor;
}

void orri_slot_give(struct orr_system *sys, struct orri_actor *actor)
{
    actor->next_sibling = sys->free_slot;
    sys->free_slot = actor;
    atomic_fetch_sub_explicit(&sys->n_actors, 1, memory_order_relaxed);
}

struct orr_addr orri_actor_addr(const struct orr_system *sys, struct orri_actor *actor)
{
    return (struct orr_addr){
        .host = sys->host,
        .slot = orri_slot_of(atomic_load_explicit(&actor->life, memory_order_relaxed),
                             actor->index),
        .incarnation = sys->config.incarnation,
    };
}

const char *orri_actor_path(const struct orri_actor *actor)
{
    const struct orri_body *body = actor->body;
    return body && body->path ? body->path : "";
}

static struct orri_name *name_slot(struct orri_name *names, uint32_t cap, uint64_t hash)
{
    uint32_t at = (uint32_t)(hash >> 32) & (cap - 1);
    while (names[at].hash && names[at].hash != hash)
        at = (at + 1) & (cap - 1);
    return &names[at];
}

uint64_t orri_name_find(struct orr_system *sys, uint64_t hash)
{
    uint64_t slot = 0;
    pthread_rwlock_rdlock(&sys->names_lock);
    if (sys->names) {
        struct orri_actor *actor = name_slot(sys->names, sys->names_cap, hash)->actor;
        if (actor)
            slot = orri_slot_of(atomic_load(&actor->life), actor->index);
    }
    pthread_rwlock_unlock(&sys->names_lock);
    return slot;
}

static bool grow_names(struct orr_system *sys)
{
    if (sys->names && sys->n_names * 2 < sys->names_cap)
        return true;
    uint32_t cap = sys->names_cap ? sys->names_cap * 2 : 16;
    struct orri_name *names = orri_zalloc(cap * sizeof(*names));
    if (!names)
        return false;
    for (uint32_t i = 0; i < sys->names_cap; i++)
        if (sys->names[i].hash)
            *name_slot(names, cap, sys->names[i].hash) = sys->names[i];
    free(sys->names);
    sys->names = names;
    sys->names_cap = cap;
    return true;
}

enum orr_err
orri_name_add(struct orr_system *sys, uint64_t hash, struct orri_actor *actor)
{
    enum orr_err err = ORR_OK;
    pthread_rwlock_wrlock(&sys->names_lock);
    if (!grow_names(sys)) {
        err = ORR_ENOMEM;
    } else {
        struct orri_name *name = name_slot(sys->names, sys->names_cap, hash);
        if (name->hash) {
            err = ORR_EEXIST;
        } else {
            *name = (struct orri_name){hash, actor};
            sys->n_names++;
        }
    }
    pthread_rwlock_unlock(&sys->names_lock);
    return err;
}

void orri_name_remove(struct orr_system *sys, uint64_t hash)
{
    pthread_rwlock_wrlock(&sys->names_lock);
    uint32_t cap = sys->names_cap;
    struct orri_name *hole = name_slot(sys->names, cap, hash);
    if (hole->hash) {
        sys->n_names--;
        uint32_t at = (uint32_t)(hole - sys->names);
        *hole = (struct orri_name){0};
        /* What followed in the same run may have to move up. */
        for (at = (at + 1) & (cap - 1); sys->names[at].hash;
             at = (at + 1) & (cap - 1)) {
            struct orri_name moved = sys->names[at];
            sys->names[at] = (struct orri_name){0};
            *name_slot(sys->names, cap, moved.hash) = moved;
        }
    }
    pthread_rwlock_unlock(&sys->names_lock);
}
