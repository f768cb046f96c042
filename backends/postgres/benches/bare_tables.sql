-- The tables of the bare program: those of the engine that a plain job passes through.
create schema bare;
create table bare.job (like windlass.job including all);
create table bare.span (like windlass.span including all);
create table bare.done (like windlass.done including all);
create sequence bare.entry;
