import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';

import { modelsQuery } from '../../api/jobs';
import { useLive } from '../../api/live';
import { changeModel, queueQuery, readModel, refreshModels, type AiModel } from '../../api/models';
import { changeField } from '../../api/versions';
import { visible } from '../../lib/ansi';
import { clock, count, counted, duration, NOTHING } from '../../lib/format';
import { Changing, useMayChange } from '../../ui/access';
import { Button, IconButton } from '../../ui/button';
import { useKeptFocus } from '../../ui/keep-focus';
import { Notice } from '../../ui/notice';
import { Prose } from '../../ui/prose';
import { readStored, writeStored } from '../../lib/storage';
import { useShortcuts } from '../../ui/shortcuts';
import { describe, Empty, Failure, Loading } from '../../ui/states';
import { Age, useNow } from '../../ui/time';
import { toast } from '../../ui/toasts';
import { useQueued } from '../../ui/use-queued';
import { EditModelDialog, NewModelDialog } from './model-dialog';
import { ModelsLayout } from './models-layout';
import styles from './models-page.module.css';
import { modelRows, slotChoices, type ModelRow } from './rows';

export function ModelsPage() {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const { edit, create } = useSearch({ from: '/app/models' });
  const mayChange = useMayChange();
  const models = useQuery(modelsQuery);
  const queue = useQuery(queueQuery);
  useLive([modelsQuery, queueQuery]);
  const open = (search: { edit?: string; create?: string }) => void navigate({ to: '/models', search });
  const close = () => open({});
  useShortcuts([{ keys: 'm', label: 'New model', isChanging: true, run: () => open({ create: '/' }) }]);

  const rows = models.data && queue.data ? modelRows(models.data.aiModels, queue.data.queues) : undefined;
  const unknown = [models, queue].find((query) => query.isLoadingError);
  return (
    <ModelsLayout
      actions={
        <Button isChanging icon="plus" onClick={() => open({ create: '/' })}>
          New model
        </Button>
      }
    >
      {unknown ? (
        <Failure error={unknown.error} onRetry={() => void refreshModels(queries)} />
      ) : !rows ? (
        <Loading rows={4} height={72} />
      ) : rows.length === 0 ? (
        <Empty
          title="No models"
          action={
            <Button isChanging kind="primary" onClick={() => open({ create: '/' })}>
              New model
            </Button>
          }
        >
          A model says how many attempts may run at once, at which address, with which credentials and at which price.
          Jobs on other models share default slots, and appear here while they run.
        </Empty>
      ) : (
        <ul className={styles.models}>
          {rows.map((row) => (
            <Model
              key={row.key}
              row={row}
              onEdit={() => open({ edit: row.aiModel?.id ?? '' })}
              onCreate={() => open({ create: row.key })}
            />
          ))}
        </ul>
      )}
      {mayChange && create && (
        <NewModelDialog
          implicit={create === '/' ? '' : create}
          slots={rows?.find((row) => row.key === create)?.slots}
          onClose={close}
        />
      )}
      {mayChange && edit && <EditModelDialog name={edit} onClose={close} />}
    </ModelsLayout>
  );
}

function Model({ row, onEdit, onCreate }: { row: ModelRow; onEdit: () => void; onCreate: () => void }) {
  const { aiModel } = row;
  return (
    <li className={styles.model} aria-label={visible(row.key)}>
      <div className={styles.name}>
        <h2>{visible(row.key)}</h2>
        <p>{aiModel ? <Facts model={aiModel} /> : `Implicit, with ${counted(row.slots, 'default slot')}`}</p>
      </div>
      <div className={styles.load}>
        <SlotBar used={row.active} slots={row.slots} />
        <span>
          {row.slots === 0 ? (
            'paused'
          ) : (
            <>
              <b>{count(row.active)}</b> of {counted(row.slots, 'slot')} busy
            </>
          )}
        </span>
      </div>
      <dl className={styles.queue}>
        <div>
          <dt>Waiting</dt>
          <dd>
            {row.waiting > 0 ? (
              <Link to="/jobs" search={{ status: ['waiting'], model: row.model }}>
                {count(row.waiting)}
              </Link>
            ) : (
              '0'
            )}
          </dd>
        </div>
        <div>
          <dt>Oldest</dt>
          <dd>{row.oldestCreatedAt ? <Age at={row.oldestCreatedAt} /> : NOTHING}</dd>
        </div>
        <div>
          <dt>Usual run</dt>
          <dd title="Median run time of its latest jobs">
            {row.usualSeconds === null ? NOTHING : duration(row.usualSeconds * 1000)}
          </dd>
        </div>
      </dl>
      <div className={styles.controls}>
        {aiModel ? (
          <>
            <Changing>
              <SlotControls model={aiModel} />
            </Changing>
            <IconButton isChanging icon="pencil" label={`Edit ${aiModel.name}`} onClick={onEdit} />
          </>
        ) : (
          <Button isChanging onClick={onCreate}>
            Make it a model
          </Button>
        )}
      </div>
      <Notices row={row} />
    </li>
  );
}

function Facts({ model }: { model: AiModel }) {
  const prices = model.prices && `$${model.prices.input} in, $${model.prices.output} out per million tokens`;
  const facts = [
    model.name,
    model.endpoint && hostOf(model.endpoint),
    model.credentialsRef && `credentials ${model.credentialsRef}`,
    prices,
  ];
  return <>{facts.filter(Boolean).join(' · ')}</>;
}

function hostOf(address: string): string {
  return URL.canParse(address) ? new URL(address).host : address;
}

const SEGMENTS = 16;

function SlotBar({ used, slots }: { used: number; slots: number }) {
  const label = `${count(used)} of ${counted(slots, 'slot')} busy`;
  if (slots > SEGMENTS || slots === 0) {
    return (
      <span role="img" aria-label={label} className={styles.bar}>
        <span style={{ width: `${slots === 0 ? 0 : Math.min(100, (used / slots) * 100)}%` }} />
      </span>
    );
  }
  return (
    <span role="img" aria-label={label} className={styles.segments}>
      {Array.from({ length: slots }, (_, slot) => (
        <span key={slot} data-busy={slot < used || undefined} />
      ))}
    </span>
  );
}

function Notices({ row }: { row: ModelRow }) {
  const now = useNow();
  const pausedUntil =
    row.pausedUntil !== null && Date.parse(row.pausedUntil) > now ? new Date(row.pausedUntil) : undefined;
  const warnings = row.aiModel?.warnings ?? [];
  if (row.slots > 0 && !pausedUntil && warnings.length === 0) return null;
  return (
    <div className={styles.notices}>
      {row.slots === 0 && (
        <Notice kind="plain">
          Paused: it has 0 slots, so none of its jobs starts.{' '}
          {row.active > 0 && `${counted(row.active, 'attempt')} still running.`}
        </Notice>
      )}
      {pausedUntil && (
        <Notice>
          Paused until {clock(pausedUntil)}, since the provider limited the rate or was overloaded. Its jobs wait.
        </Notice>
      )}
      {warnings.map((warning) => (
        <Notice key={warning}>
          <Prose text={`${warning.charAt(0).toUpperCase()}${warning.slice(1)}.`} />
        </Notice>
      ))}
    </div>
  );
}

const DEFAULT_SLOTS = 4;

function SlotControls({ model }: { model: AiModel }) {
  const queries = useQueryClient();
  const setting = `labrats.slots.${model.name}`;
  const change = useMutation({
    mutationFn: (slots: number) =>
      changeField(
        model,
        'slots',
        slots,
        (changes) => changeModel(model.name, changes),
        () => readModel(model.name),
      ),
    onSuccess: ({ slots }) =>
      toast(slots === 0 ? `${model.name} is paused: it has 0 slots.` : `${model.name} has ${counted(slots, 'slot')}.`),
    onError: (error) => toast(describe(error).message, 'error'),
    onSettled: () => refreshModels(queries),
  });
  const [slots, setSlots] = useQueued(
    change.isPending ? change.variables : model.slots,
    change.isPending,
    change.mutate,
  );
  const pause = () => {
    writeStored('localStorage', setting, String(model.slots));
    setSlots(0);
  };
  const before = Number(readStored('localStorage', setting)) || DEFAULT_SLOTS;
  return (
    <>
      {model.slots === 0 ? (
        <Button
          icon="play"
          // While it is being paused, a click waits for the end of that.
          isBusy={change.isPending && change.variables !== 0}
          title={`Resume ${model.name} with ${counted(before, 'slot')}`}
          onClick={() => setSlots(before)}
        >
          Resume, {counted(before, 'slot')}
        </Button>
      ) : (
        <>
          <SlotSelect model={model} slots={slots} onChange={(chosen) => (chosen === 0 ? pause() : setSlots(chosen))} />
          <IconButton icon="pause" label={`Pause ${model.name}: set 0 slots`} onClick={pause} />
        </>
      )}
    </>
  );
}

/** slots: the number to show, which may be on its way. */
function SlotSelect({ model, slots, onChange }: { model: AiModel; slots: number; onChange: (slots: number) => void }) {
  return (
    <select
      ref={useKeptFocus<HTMLSelectElement>()}
      aria-label={`Slots of ${model.name}`}
      value={slots}
      className={styles.slots}
      onChange={(event) => onChange(Number(event.target.value))}
    >
      {slotChoices(model.slots).map((choice) => (
        <option key={choice} value={choice}>
          {choice === 0 ? 'Pause' : counted(choice, 'slot')}
        </option>
      ))}
    </select>
  );
}
