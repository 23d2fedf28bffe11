"""One-shot secure aggregation: device, member and opener side by side.

The coordinator learns the sum of a cohort's vectors and nothing else, and a
device speaks once. Read `device.contribute`, `member.answer` and
`opener.open_sum`, in this order; docs/protocol-secagg.md has the argument.

    parameters   every number, derived from (n_max, value_bits, committee size)
    encoding     floats <-> integers that can be added
    device       encrypt, share the key, sign                       (each contributor, once)
    contributors the frozen set U and its hash
    member       open one's shares and add them                     (each member, once)
    erasure      statements that let devices of a void cohort speak again
    opener       answers + running sum -> the sum, or absent        (the coordinator)
    prekeys, committee   who can be sealed to while it is off, and who is drawn
    ring, sampling, keystream, public_matrix, packing, sharing, sealing   the parts

Pure: bytes and arrays in, bytes and arrays out; randomness and time are arguments.
"""
