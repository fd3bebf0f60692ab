"""setup.py databases|users|ports DIR KEYSTONE GLANCE

databases: lets several threads use them at once.
users: makes the projects, users and catalogue through Keystone's API.
ports: changes the catalogue of a copied database to the services' ports.
"""
import sqlite3
import sys

what, directory, keystone, glance = sys.argv[1:]
database = directory + '/keystone.db'

if what == 'databases':
    for name in ('keystone.db', 'glance.db'):
        sqlite3.connect(directory + '/' + name).execute('PRAGMA journal_mode=WAL')
    sys.exit()

if what == 'ports':
    with sqlite3.connect(database) as db:
        for kind, url in (('identity', keystone), ('image', glance)):
            db.execute('UPDATE endpoint SET url = ? WHERE service_id IN (SELECT id FROM service WHERE type = ?)', (url, kind))
    sys.exit()

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client


def login(name, project):
    auth = v3.Password(auth_url=keystone, username=name, password=name + '-pw', project_name=project,
                       user_domain_id='default', project_domain_id='default')
    return client.Client(session=session.Session(auth=auth))


k = login('admin', 'admin')
roles = {r.name: r for r in k.roles.list()}
for name, project, role in (('glance', 'service', 'admin'), ('publisher', 'images', 'member'), ('other', 'other', 'member')):
    p = k.projects.create(name=project, domain='default')
    u = k.users.create(name=name, domain='default', password=name + '-pw')
    k.roles.grant(roles[role], user=u, project=p)
service = k.services.create(name='glance', type='image')
for interface in ('public', 'internal', 'admin'):
    k.endpoints.create(service=service, url=glance, interface=interface, region='RegionOne')
publisher = login('publisher', 'images')
app = publisher.application_credentials.create('publisher-app', secret='publisher-app-pw')
with open(directory + '/app.credential', 'w') as f:
    print(app.id, app.secret, file=f)

with sqlite3.connect(database) as db:  # which is copied now
    db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
