/* SPDX-License-Identifier: Apache-2.0
 * test_digits_trainer.c - the digits example's kernels on one emulated device, held
 * against the plain C of digits_reference.c.
 */
#include "device_file.h"
#include "digits_reference.h"
#include "orr_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct data data;
static char folder[] = "/dev/shm/test-digits-XXXXXX", device[64];

static const struct trainer_config config = {
    .hidden = 32, .batch = 64, .lr = 0.1f, .momentum = 0.9f, .seed = 5, .world = 1};

static ncclComm_t open_trainer(struct trainer *t, const struct trainer_config *cfg)
{
    ncclUniqueId id;
    ncclComm_t comm;
    trainer_init(t, cfg);
    NCCL(ncclGetUniqueId, &id);
    NCCL(ncclCommInitRank, &comm, 1, id, 0);
    trainer_load(t, &data, comm);
    return comm;
}

static void close_trainer(struct trainer *t, ncclComm_t comm)
{
    NCCL(ncclCommDestroy, comm);
    trainer_fini(t);
}

static void trainer_follows_the_reference(void **state)
{
    (void)state;
    enum { STEPS = 25 }; /* over the end of the first epoch of 22 */
    struct trainer t;
    struct reference r;
    ncclComm_t comm = open_trainer(&t, &config);
    size_t n = trainer_nweights(&t);
    float *w = calloc(n, sizeof *w);
    trainer_weights(&t, w);
    reference_init(&r, &config, &data, w);
    for (int i = 0; i < STEPS; i++) {
        trainer_step(&t);
        reference_step(&r);
        assert_true(fabs((double)trainer_loss(&t) - r.loss) < 1e-4);
    }
    trainer_weights(&t, w);
    size_t used = n - 22; /* 32 * 75 + 10, then padding */
    for (size_t k = 0; k < used; k++)
        if (!(fabs((double)w[k] - r.w[k]) < 1e-4))
            fail_msg("weight %zu: %g, want %g", k, (double)w[k], r.w[k]);
    for (size_t k = used; k < n; k++)
        assert_true(w[k] == 0.0f);
    assert_true(fabs(trainer_accuracy(&t) - reference_accuracy(&r)) < 0.006);
    reference_fini(&r);
    free(w);
    close_trainer(&t, comm);
}

static uint64_t digest_after(const struct trainer_config *cfg, int steps)
{
    struct trainer t;
    ncclComm_t comm = open_trainer(&t, cfg);
    for (int i = 0; i < steps; i++)
        trainer_step(&t);
    uint64_t digest = trainer_digest(&t);
    close_trainer(&t, comm);
    return digest;
}

static void digest_depends_on_seed_and_steps_alone(void **state)
{
    (void)state;
    struct trainer_config other = config;
    uint64_t digest = digest_after(&config, 3);
    assert_true(digest == digest_after(&config, 3));
    assert_false(digest == digest_after(&config, 4));
    other.seed++;
    assert_false(digest == digest_after(&other, 3));
}

static int set_up(void **state)
{
    (void)state;
    char err[DATA_ERR_MAX];
    const uint8_t uuid[16] = {1};
    if (!mkdtemp(folder))
        return -1;
    snprintf(device, sizeof device, "%s/gpu", folder);
    if (emu_device_file_create(device, uuid, "Emulated GPU", 16 << 20, NULL) != 0)
        return -1;
    setenv("ORRERY_EMULATOR_DEVICES", device, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    return data_load(&data, DIGITS_CSV, err) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    data_fini(&data);
    return unlink(device) == 0 && rmdir(folder) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainer_follows_the_reference),
        cmocka_unit_test(digest_depends_on_seed_and_steps_alone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
