-- The tables of the bare program: those of the engine that a plain job passes through.
create schema bare;
create table bare.job (like windlass.job including all);
create table bare.live (like windlass.live including all);
create table bare.done (like windlass.done including all);
alter table bare.live set (fillfactor = 38, autovacuum_vacuum_cost_delay = 0);
create sequence bare.entry;
