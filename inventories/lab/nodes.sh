#!/bin/sh
# The lab's running nodes, as ansible asks for them.
exec "$(dirname "$0")/../../tests/lab/lab" inventory
