-- Bytes of messages between this device and its coordinator, by night; a night is named by the day of the noon
-- in which it begins (days since 1970-01-01, local time).
CREATE TABLE traffic (
    night INTEGER PRIMARY KEY,
    sent_bytes INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL
);
