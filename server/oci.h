/* oci.h - the JSON of an OCI image layout (image-spec, v1): index, manifest, configuration. Documents
 * are compared with their digests, and no longer than JSON_BLOB_BYTES. */
#pragma once
#include "layout.h"

#define JSON_BLOB_BYTES (4u << 20)

layout_reader oci_read;
