/* shim_image.h - the static program cloche-shim, carried inside of cloche (shim_image.S). */
#pragma once

extern const unsigned char shim_image_start[], shim_image_end[];
