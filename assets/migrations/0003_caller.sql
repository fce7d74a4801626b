-- Who asked: the end user that the request names, and the address of the client.
ALTER TABLE request ADD COLUMN user TEXT;
ALTER TABLE request ADD COLUMN ip TEXT;
