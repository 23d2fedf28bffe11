"""Device profiles: what kind of machine this is, and what it should be asked to do.

`read_facts` looks at the machine, `load_profiles` reads `device_profiles/*.toml`,
`choose` picks one of them, and `settings_for` turns its advice into numbers for
this very machine. Everything but `read_facts` and `load_profiles` is pure.

The submodules are imported by name, because a command that shows a list needs
neither pydantic nor the machine.
"""
