/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_drop.h"
#include "orr_test.h"

static char images[64];

static void put(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", images, name);
    assert_int_equal(mkdir(path, 0700), 0);
    strcat(path, "/pages-1.img");
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", images, name);
    return access(path, F_OK) == 0;
}

static enum orr_err drop(const char *name, struct orr_error *err)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", images, name);
    return orr_image_drop(images, orr_str(path), err);
}

static void an_image_goes_and_the_others_stay(void **state)
{
    struct orr_error err;
    (void)state;
    put("r1-1-1-1-0");
    put("r1-1-1-1-1");
    assert_int_equal(drop("r1-1-1-1-0", &err), ORR_OK);
    assert_false(is_there("r1-1-1-1-0"));
    assert_true(is_there("r1-1-1-1-1"));
    assert_int_equal(drop("r1-1-1-1-0", &err), ORR_OK);
}

static void nothing_outside_is_removed(void **state)
{
    struct orr_error err;
    static const char *const bad[] = {"", "..", "../x", "a/b", "."};
    (void)state;
    for (size_t i = 0; i < ORR_ARRAY_SIZE(bad); i++)
        assert_int_equal(drop(bad[i], &err), ORR_EINVAL);
    assert_int_equal(orr_image_drop(images, ORR_LIT("/etc"), &err), ORR_EINVAL);
}

static void what_an_earlier_host_left_goes(void **state)
{
    struct orr_error err;
    (void)state;
    char arena[256];
    put("left");
    snprintf(arena, sizeof arena, "%s/arena-r1-1-1-0-7", images);
    int fd = open(arena, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(orr_images_open(images, &err), ORR_OK);
    assert_false(is_there("left"));
    assert_true(is_there("arena-r1-1-1-0-7")); /* a rank may live that needs it */
    put("left");
    assert_int_equal(orr_images_remove(images, &err), ORR_OK);
    assert_int_equal(access(images, F_OK), -1);
    assert_int_equal(orr_images_remove(images, &err), ORR_OK);
    assert_int_equal(orr_images_open(images, &err), ORR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_goes_and_the_others_stay),
        cmocka_unit_test(nothing_outside_is_removed),
        cmocka_unit_test(what_an_earlier_host_left_goes),
    };
    strcpy(images, "/tmp/orr-images-XXXXXX");
    if (!mkdtemp(images))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    struct orr_error err;
    if (orr_images_remove(images, &err) != ORR_OK)
        return 1;
    return rc;
}
