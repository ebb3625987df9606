-- A ledger as version 3 of its schema left it.
PRAGMA user_version=3;
BEGIN TRANSACTION;
CREATE TABLE generations (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	fingerprint TEXT NOT NULL, 
	engine TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	checked FLOAT NOT NULL, 
	databases JSON NOT NULL
);
INSERT INTO "generations" VALUES(1,'f1','private ClamAV 1.4.6',1.79558081996340584756e+09,1.79558081996340584756e+09,'[{"name": "test.ndb", "version": null, "signatures": 1, "built": null, "sha256": "00"}]');
INSERT INTO "generations" VALUES(2,'f2','private ClamAV 1.4.6',1.79558081997367811203e+09,1.79558081997367811203e+09,'[{"name": "test.ndb", "version": null, "signatures": 2, "built": null, "sha256": "00"}]');
CREATE TABLE images (
	store TEXT NOT NULL, 
	"key" BLOB NOT NULL, 
	inode INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	mtime_ns INTEGER NOT NULL, 
	ctime_ns INTEGER NOT NULL, 
	verdict TEXT, 
	signature TEXT, 
	reason TEXT, 
	generation INTEGER, 
	checked FLOAT, 
	full_checked FLOAT, 
	missing_since FLOAT, 
	recipe TEXT, 
	optimized_size INTEGER, 
	optimized_mtime_ns INTEGER, 
	sha256 BLOB, 
	bytes_saved INTEGER DEFAULT '0' NOT NULL, 
	optimized_ctime_ns INTEGER, 
	kept_reason TEXT, 
	PRIMARY KEY (store, "key")
)
 WITHOUT ROWID

;
INSERT INTO "images" VALUES('uploads',X'6261642E706E67',9,10,11,12,'infected','Test.Bad',NULL,2,1.79558081997735595708e+09,1.79558081997735595708e+09,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "images" VALUES('uploads',X'676F6E652E706E67',25,26,27,28,'clean',NULL,NULL,1,1.79558081997594904894e+09,1.79558081997594904894e+09,1.79558081998661208146e+09,NULL,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "images" VALUES('uploads',X'6E65772E706E67',1,2,3,4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "images" VALUES('uploads',X'73756200636C65616E2E706E67',5,6,7,8,'clean',NULL,NULL,2,1.79558081997735595708e+09,1.79558081997735595708e+09,NULL,'recipe',6,7,X'0102',5,8,NULL);
INSERT INTO "images" VALUES('uploads',X'737562006F6C642E706E67',13,14,15,16,'clean',NULL,NULL,1,1.79558081997594904894e+09,1.79558081997594904894e+09,NULL,'recipe',14,15,X'0304',0,16,'hard link');
INSERT INTO "images" VALUES('uploads',X'756E646F6E652E706E67',21,22,23,24,'infected','Test.Bad','timed out',2,1.79558081998135709764e+09,1.79558081997735595708e+09,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL);
INSERT INTO "images" VALUES('uploads',X'756E737572652E706E67',17,18,19,20,'unknown',NULL,'clamd hung up',2,1.79558081997735595708e+09,1.79558081997735595708e+09,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL);
CREATE TABLE outbox (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" TEXT NOT NULL, 
	clock FLOAT NOT NULL, 
	value TEXT NOT NULL, 
	set_aside TEXT
);
INSERT INTO "outbox" VALUES(1,'imagewarden.run[rescan]',2.0,'{"job": "rescan"}',NULL);
CREATE TABLE purges (number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, "key" BLOB NOT NULL, since FLOAT NOT NULL);
CREATE TABLE runs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job TEXT NOT NULL, 
	started FLOAT NOT NULL, 
	finished FLOAT NOT NULL, 
	outcome TEXT NOT NULL, 
	status INTEGER NOT NULL, 
	generation INTEGER, 
	result JSON NOT NULL
);
INSERT INTO "runs" VALUES(1,'rescan',1.0,2.0,'done',0,2,'{"job": "rescan"}');
ANALYZE "sqlite_master";
INSERT INTO "sqlite_stat1" VALUES('images','images','1000000 200000 1');
INSERT INTO "sqlite_stat1" VALUES('images','images_due','1000000 1000000 100000 1000 1 1 1');
INSERT INTO "sqlite_stat1" VALUES('images','images_unsure','1000 1000 1000 10 1');
INSERT INTO "sqlite_stat1" VALUES('images','images_unclean','1000 1000 500 1');
CREATE TABLE undone (
	job TEXT NOT NULL, 
	store TEXT NOT NULL, 
	"key" BLOB NOT NULL, 
	reason TEXT NOT NULL, 
	since FLOAT NOT NULL, 
	PRIMARY KEY (job, store, "key")
);
INSERT INTO "undone" VALUES('rescan','uploads',X'636C6F736564','Permission denied',1.7955808199917240143e+09);
CREATE INDEX runs_job ON runs (job, number);
CREATE UNIQUE INDEX purges_image ON purges (store, "key");
CREATE INDEX images_due ON images (store, generation, checked, "key", missing_since, ctime_ns);
CREATE INDEX images_unsure ON images (store, generation, checked, "key") WHERE verdict = 'unknown' OR reason IS NOT NULL;
CREATE INDEX images_unclean ON images (store, verdict, "key") WHERE verdict != 'clean';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('generations',2);
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('outbox',1);
COMMIT;
