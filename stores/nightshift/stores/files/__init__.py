"""Files and images, local or remote: addresses, allowed roots, downloads, decoding."""
