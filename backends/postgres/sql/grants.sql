-- What a role needs that dispatches and works, and changes no schema.
grant usage on schema "@schema@" to "@role@";
grant select, insert, update, delete on all tables in schema "@schema@" to "@role@";
grant usage, select, update on all sequences in schema "@schema@" to "@role@";
