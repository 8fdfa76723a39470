import { useMutation, useQueryClient } from '@tanstack/react-query';

import { causes, changeSource, readSource, sourceQuery, sourcesQuery, type WebhookSource } from '../../api/sources';
import { changeField } from '../../api/versions';
import { visible } from '../../lib/ansi';
import { Icon } from '../../ui/icons';
import { describe } from '../../ui/states';
import { Switch } from '../../ui/switch';
import { toast } from '../../ui/toasts';
import { conditionInWords, OFF } from './conditions';
import styles from './sources-page.module.css';

export function SourceSwitch({ source }: { source: WebhookSource }) {
  const queries = useQueryClient();
  const change = useMutation({
    mutationFn: (enabled: boolean) =>
      changeField(
        source,
        'enabled',
        enabled,
        (changes) => changeSource(source.id, changes),
        () => readSource(source.id),
      ),
    onSuccess: (saved) =>
      toast(saved.enabled ? `${saved.name} is on.` : `${saved.name} is off: it refuses deliveries.`),
    onError: (error) => toast(describe(error).message, 'error'),
    onSettled: () =>
      Promise.all([
        queries.invalidateQueries({ queryKey: sourcesQuery.queryKey }),
        queries.invalidateQueries({ queryKey: sourceQuery(source.id).queryKey, exact: true }),
      ]),
  });
  return (
    <Switch
      label={`${source.name} is enabled`}
      isOn={change.isPending ? change.variables : source.enabled}
      isBusy={change.isPending}
      onChange={change.mutate}
    />
  );
}

/**
 * The conditions that the engine reports, such as `Ready`, with their messages. isShort: only those that do not hold,
 * else `Ready`.
 */
export function Conditions({ source, isShort = false }: { source: WebhookSource; isShort?: boolean }) {
  const failing = causes(source.conditions.filter((condition) => condition.status !== 'True'));
  const shown = !isShort
    ? source.conditions
    : failing.length > 0
      ? failing
      : source.conditions.filter((condition) => condition.type === 'Ready');
  if (shown.length === 0) return null;
  return (
    <ul className={styles.conditions}>
      {shown.map((condition) => (
        <li key={condition.type} className={condition.status === 'True' ? styles.good : styles.bad}>
          <Icon name={condition.status === 'True' ? 'check' : condition.reason === OFF ? 'pause' : 'warning'} />
          <span>{visible(conditionInWords(condition))}</span>
        </li>
      ))}
    </ul>
  );
}
